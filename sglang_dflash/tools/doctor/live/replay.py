"""The batch-1 reference over answers that are known: what its draft would have had accepted.

The target runs once per answer, and every wiring of the draft is tried on the same hidden states.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from sglang_dflash.reference import ReferenceDraft


class Recording(NamedTuple):
    """A prompt with its answer, and the target's hidden states over both."""

    tokens: tuple[int, ...]  # prompt and answer
    prompt_length: int
    hidden_states: torch.Tensor  # [layers, tokens, hidden] fp32: outputs of the layers
    agreement: float  # share of the answer that is the target's own greedy choice here


@torch.inference_mode()
def record(target: torch.nn.Module, prompt: Sequence[int], answer: Sequence[int]) -> Recording:
    """One pass of the target over a prompt and its answer."""
    tokens = (*prompt, *answer)
    outputs: list[torch.Tensor] = []
    # What transformers hands out as hidden states ends behind the final norm, and some classes hand out none.
    hooks = [
        layer.register_forward_hook(lambda _layer, _inputs, output: outputs.append(_tensor(output)[0]))
        for layer in target.get_decoder().layers
    ]
    logits = target(torch.tensor([tokens])).logits[0]
    for hook in hooks:
        hook.remove()
    greedy = logits[len(prompt) - 1 : -1].argmax(-1)
    agreement = (greedy == torch.tensor(answer)).float().mean().item()
    return Recording(tokens, len(prompt), torch.stack(outputs), agreement)


def _tensor(output) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


@torch.inference_mode()
def replay(target: torch.nn.Module, draft: ReferenceDraft, recording: Recording, block_size: int) -> list[int]:
    """Draft tokens kept in each round until the answer's last token is out."""
    tokens, at = recording.tokens, recording.prompt_length
    features = torch.cat([recording.hidden_states[i] for i in draft.target_layer_ids], -1)
    draft.reset()
    draft.inject(features[:at])
    kept = []
    while at + 1 < len(tokens):
        block = torch.tensor([tokens[at]] + [draft.mask_token_id] * (block_size - 1))
        hidden = draft.forward(draft.embed(target, block))
        guessed = draft.guess(target, hidden, tokens[at]).tolist()
        wanted = tokens[at + 1 : at + block_size]
        correct = next(
            (i for i, pair in enumerate(zip(guessed, wanted, strict=False)) if pair[0] != pair[1]), len(wanted)
        )
        # The last token of all may be the bonus token: it needs no draft of its own.
        kept.append(correct)
        draft.inject(features[at : at + correct + 1])
        at += correct + 1
    return kept
