"""The loop: draft a block, verify it by one pass of the target, keep what the target would have said."""

from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, DynamicCache

from sglang_dflash.reference.draft import ReferenceDraft


class Generation(NamedTuple):
    """What one request got."""

    tokens: list[int]  # new tokens, up to and with the stop token
    commit_lens: list[int]  # per round: correct drafts + 1, also where the request ended inside


def load_target(folder: str | Path) -> torch.nn.Module:
    """The target in fp32, evaluation mode."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.inference_mode()
def generate(target, draft: ReferenceDraft, prompt, max_new_tokens, stop_ids=(), block_size=0) -> Generation:
    """Greedy DFlash decoding of one prompt (token ids); block_size 0 means the draft's own."""
    size = block_size or draft.block_size
    cache = DynamicCache()
    output = target(torch.tensor([prompt]), past_key_values=cache, output_hidden_states=True)
    draft.reset()
    draft.inject(_features(output, draft, len(prompt)))
    tokens, commit_lens = [int(output.logits[0, -1].argmax())], []
    while len(tokens) < max_new_tokens and not set(tokens) & set(stop_ids):
        block = torch.tensor([tokens[-1]] + [draft.mask_token_id] * (size - 1))
        hidden = draft.forward(draft.embed(target, block))
        block[1:] = guessed = draft.guess(target, hidden, tokens[-1])
        output = target(block[None], past_key_values=cache, output_hidden_states=True)
        wanted = output.logits[0].argmax(-1)
        correct = int((guessed == wanted[:-1]).long().cumprod(0).sum())
        tokens += wanted[: correct + 1].tolist()
        commit_lens.append(correct + 1)
        draft.inject(_features(output, draft, correct + 1))
        cache.crop(correct + 1 - size)
    ends = [i + 1 for i, token in enumerate(tokens) if token in stop_ids]
    return Generation(tokens[: min(ends + [max_new_tokens])], commit_lens)


def plain_greedy(target, prompt: list[int], max_new_tokens: int, stop_ids=()) -> list[int]:
    """Greedy decoding by the target alone: the same loop with blocks of one token."""
    cache, tokens, step = DynamicCache(), [], list(prompt)
    with torch.inference_mode():
        while len(tokens) < max_new_tokens and not set(tokens) & set(stop_ids):
            step = [int(target(torch.tensor([step]), past_key_values=cache).logits[0, -1].argmax())]
            tokens += step
    return tokens


def _features(output, draft: ReferenceDraft, count: int) -> torch.Tensor:
    """Outputs of the draft's target layers for the first ``count`` tokens, [count, K * hidden]."""
    return torch.cat([output.hidden_states[i + 1][0, :count] for i in draft.target_layer_ids], -1)
