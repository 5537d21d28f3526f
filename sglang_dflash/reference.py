"""DFlash for one request in plain torch: the readable oracle, sharing no code with the served path.

Method: DFlash, arXiv 2602.06036, section 3. Greedy, fp32, chain proposals, full blocks in every round.
"""

import json
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.models.qwen3.modeling_qwen3 import Qwen3Config, Qwen3RotaryEmbedding


class Generation(NamedTuple):
    """What one request got."""

    tokens: list[int]  # new tokens, up to and with the stop token
    commit_lens: list[int]  # per round: correct drafts + 1, also where the request ended inside


class ReferenceDraft:
    """A published DFlash checkpoint as tensors, with a forward pass over one block."""

    def __init__(self, folder: str | Path):
        raw = json.loads((Path(folder) / "config.json").read_text())
        own = raw.get("dflash_config") or {}
        self.config = Qwen3Config.from_pretrained(folder)
        self.block_size = int(own.get("block_size") or raw["block_size"])
        self.mask_token_id = own.get("mask_token_id", raw.get("mask_token_id"))
        self.target_layer_ids = own.get("target_layer_ids") or raw["target_layer_ids"]
        self.is_causal = raw.get("is_causal")
        self.weights = {k: v.float() for k, v in load_file(Path(folder) / "model.safetensors").items()}
        self.rope = Qwen3RotaryEmbedding(self.config)
        self.reset()

    def reset(self) -> None:
        """Forget the context: keys and values, per layer [kv_heads, tokens, head_dim]."""
        nothing = torch.zeros(self.config.num_key_value_heads, 0, self.config.head_dim)
        self.keys = [nothing] * self.config.num_hidden_layers
        self.values = list(self.keys)

    def inject(self, hidden_states: torch.Tensor) -> None:
        """KV injection: hidden_states [tokens, K * hidden] of the next committed tokens."""
        start = self.keys[0].shape[1]
        features = self._norm(F.linear(hidden_states, self.weights["fc.weight"]), "hidden_norm")
        for layer in range(self.config.num_hidden_layers):
            key, value = self._key_value(layer, features, start)
            self.keys[layer] = torch.cat((self.keys[layer], key), 1)
            self.values[layer] = torch.cat((self.values[layer], value), 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One block: embeddings [B, hidden] of [anchor, mask ...] -> final hidden states [B, hidden]."""
        for layer in range(self.config.num_hidden_layers):
            x = x + self._attention(layer, self._norm(x, f"layers.{layer}.input_layernorm"))
            y = self._norm(x, f"layers.{layer}.post_attention_layernorm")
            gated = F.silu(self._linear(layer, "mlp.gate_proj", y)) * self._linear(layer, "mlp.up_proj", y)
            x = x + self._linear(layer, "mlp.down_proj", gated)
        return self._norm(x, "norm")

    def _attention(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        start, size = self.keys[layer].shape[1], x.shape[0]
        repeat = self.config.num_attention_heads // self.config.num_key_value_heads
        key, value = self._key_value(layer, x, start)
        key = torch.cat((self.keys[layer], key), 1).repeat_interleave(repeat, 0)
        value = torch.cat((self.values[layer], value), 1).repeat_interleave(repeat, 0)
        query = self._rotate(self._heads(layer, "q", x), start)
        scores = query @ key.mT * self.config.head_dim**-0.5
        hidden = ~self._visible(layer, torch.arange(start, start + size), torch.arange(start + size))
        out = scores.masked_fill(hidden, float("-inf")).softmax(-1) @ value
        return self._linear(layer, "self_attn.o_proj", out.transpose(0, 1).reshape(size, -1))

    def _visible(self, layer: int, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """[queries, keys] bool: a block sees itself both ways, unless its layer is causal; windows cut."""
        sliding = (self.config.layer_types or ["full_attention"] * 99)[layer] == "sliding_attention"
        distance = query[:, None] - key
        visible = torch.ones_like(distance, dtype=torch.bool)
        if sliding if self.is_causal is None else self.is_causal:
            visible &= distance >= 0
        if sliding:
            visible &= distance.abs() < self.config.sliding_window
        return visible

    def _key_value(self, layer: int, x: torch.Tensor, start: int) -> tuple[torch.Tensor, torch.Tensor]:
        value = self._linear(layer, "self_attn.v_proj", x)
        value = value.view(len(x), -1, self.config.head_dim).transpose(0, 1)
        return self._rotate(self._heads(layer, "k", x), start), value

    def _heads(self, layer: int, which: str, x: torch.Tensor) -> torch.Tensor:
        """Normed query or key heads, [heads, tokens, head_dim]."""
        heads = self._linear(layer, f"self_attn.{which}_proj", x).view(len(x), -1, self.config.head_dim)
        return self._norm(heads, f"layers.{layer}.self_attn.{which}_norm").transpose(0, 1)

    def _rotate(self, heads: torch.Tensor, start: int) -> torch.Tensor:
        cos, sin = self.rope(heads, torch.arange(start, start + heads.shape[1])[None])
        first, second = heads.chunk(2, -1)
        return heads * cos + torch.cat((-second, first), -1) * sin

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.config.rms_norm_eps)

    def _linear(self, layer: int, name: str, x: torch.Tensor) -> torch.Tensor:
        name = f"layers.{layer}.{name}"
        return F.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))


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
        hidden = draft.forward(target.get_input_embeddings()(block))
        block[1:] = guessed = target.lm_head(hidden[1:]).argmax(-1)
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
