"""Chains that go on as the context did before: instead of the draft's, or where they are likelier to be kept."""

import torch

from sglang_dflash.types import Continuation, Drafted, Proposal, Shape


class ContextChain:
    """Proposes [anchor, the continuation]; needs no draft pass. Nodes behind a continuation's end are token 0."""

    candidates = 0

    def __init__(self, width: int):
        self.shape = Shape.context(width)

    def __call__(self, drafted: Drafted) -> Proposal:
        """-> chain of [bs, W] nodes."""
        anchors, count = drafted.tokens[:, :1], self.shape.width - 1
        found = drafted.continuation
        return _chain(drafted, torch.zeros_like(anchors).expand(-1, count) if found is None else found.tokens)


class ChainOrContext:
    """Proposes the draft's chain or the continuation, whichever is expected to have more of it kept.

    A chain may be longer than the block: the draft's ends there, the continuation does not.
    """

    candidates = 1

    def __init__(self, width: int):
        self.shape = Shape.chain(width)

    def __call__(self, drafted: Drafted) -> Proposal:
        """-> chain of [bs, W] nodes."""
        assert drafted.log_probs is not None  # asked for
        draft = _padded(drafted.tokens[:, 1:], drafted.log_probs[..., 0], self.shape.width - 1)
        found = drafted.continuation
        return _chain(drafted, draft.tokens if found is None else likelier(draft, found))


def likelier(draft: Continuation, context: Continuation) -> torch.Tensor:
    """Tokens [bs, C] of the chain that is expected to have more tokens kept; log-probabilities are conditional.

    As far as both agree, a token is as likely as the more confident of the two says.
    """
    agrees = (draft.tokens == context.tokens).int().cumprod(1).bool()
    steps = torch.where(agrees, torch.maximum(draft.log_probs, context.log_probs), context.log_probs)
    kept_of_draft, kept_of_context = (steps.cumsum(1).exp().sum(1, keepdim=True) for steps in (draft.log_probs, steps))
    return torch.where(kept_of_context > kept_of_draft, context.tokens, draft.tokens)


def _padded(tokens: torch.Tensor, log_probs: torch.Tensor, count: int) -> Continuation:
    """The first ``count`` of them; where there are fewer, token 0 with no chance."""
    more = count - tokens.shape[1]
    pad = torch.nn.functional.pad
    return Continuation(pad(tokens, (0, more)), pad(log_probs, (0, more), value=-torch.inf))


def _chain(drafted: Drafted, tokens: torch.Tensor) -> Proposal:
    depths = torch.arange(tokens.shape[1] + 1, device=tokens.device)
    return Proposal(
        tokens=torch.cat((drafted.tokens[:, :1], tokens), 1), parents=None, positions=drafted.positions[:, :1] + depths
    )
