"""What a rule of a node is: a change of the target's logits that plain decoding makes before it chooses a token."""

from collections.abc import Sequence

import torch

from sglang_dflash.types import Acceptance, Proposal


class Rule:
    """One kind of change, made to the logits of every node as if the node's path had been emitted.

    ``batch`` is SGLang's of this round or prefill; under overlap scheduling its requests' ``output_ids`` may lack what
    the round before emitted. A rule that counts emitted tokens keeps its own state on the device, per request, and
    hears of every emission: first ``before_prefill`` and ``after_prefill``, for each chunk of a prompt and again
    after a retraction, then ``commit`` for each round. All ranks of a tensor-parallel group run the same rules on whole
    logits; rank 0's choice is taken.
    """

    def wanted(self, batch) -> bool:
        """Whether a request of ``batch`` asks for it; read from the host, in every round: it must cost nothing."""
        raise NotImplementedError

    def revise(self, batch, proposal: Proposal) -> Proposal:
        """What is to be verified instead of ``proposal``: as many nodes, with the same parents."""
        return proposal

    def start(self, batch, proposal: Proposal) -> None:
        """Called before the verify pass is launched: work on the host runs beside it."""

    def apply(self, logits: torch.Tensor, batch, proposal: Proposal) -> None:
        """Change ``logits`` [bs, W, V] float32 in place; the rows of requests that do not ask for it stay."""
        raise NotImplementedError

    def commit(self, batch, accepted: Acceptance) -> None:
        """The round has emitted ``accepted.emitted``; its buffers are written again two rounds later."""

    def before_prefill(self, batch) -> None:
        """SGLang chooses a prefill's token: ``batch.sampling_info``, a copy for this pass, may be changed for it.

        Rows are prompts or chunks of them; of ``batch.decoding_reqs``, where there are any, they emit their next token.
        """

    def after_prefill(self, batch, tokens: torch.Tensor) -> None:
        """The prefill chose ``tokens`` [bs] int64; that of a prompt whose chunks are not all done is dropped."""


class Rules:
    """The list, in plain decoding's order."""

    def __init__(self, rules: Sequence[Rule]):
        self._rules = tuple(rules)

    def of(self, batch) -> tuple[Rule, ...]:
        """Those that ``batch`` wants, in order; none for most."""
        return tuple(rule for rule in self._rules if rule.wanted(batch))
