"""A plain DFlash draft in plain torch: one block over the context of one request."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers.models.qwen3.modeling_qwen3 import Qwen3Config, Qwen3RotaryEmbedding


class ReferenceDraft:
    """A published DFlash checkpoint as tensors, with a forward pass over one block."""

    def __init__(self, folder: str | Path):
        self.raw = json.loads((Path(folder) / "config.json").read_text())
        self.own = self.raw.get("dflash_config") or {}
        self.config = self.layer_config()
        self.block_size = int(self.own.get("block_size") or self.raw.get("block_size") or 16)
        self.mask_token_id = self.own.get("mask_token_id", self.raw.get("mask_token_id"))
        self.target_layer_ids = self.own.get("target_layer_ids") or self.raw["target_layer_ids"]
        self.is_causal = self.raw.get("is_causal")
        self.weights = {k: v.float() for k, v in load_file(Path(folder) / "model.safetensors").items()}
        self.rope = Qwen3RotaryEmbedding(self.config)
        self.reset()

    def layer_config(self) -> Qwen3Config:
        """Sizes of the layers as transformers reads them."""
        return Qwen3Config.from_dict(dict(self.raw))

    def reset(self) -> None:
        """Forget the context: keys and values, per layer [kv_heads, tokens, head_dim]."""
        nothing = torch.zeros(self.config.num_key_value_heads, 0, self.config.head_dim)
        self.keys = [nothing] * self.config.num_hidden_layers
        self.values = list(self.keys)

    def inject(self, hidden_states: torch.Tensor) -> None:
        """KV injection: hidden_states [tokens, K * hidden] of the next committed tokens."""
        start, features = self.keys[0].shape[1], self._fused(hidden_states)
        for layer in range(self.config.num_hidden_layers):
            key, value = self._key_value(layer, self._context(layer, features), start)
            self.keys[layer] = torch.cat((self.keys[layer], key), 1)
            self.values[layer] = torch.cat((self.values[layer], value), 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One block: embeddings [B, hidden] of [anchor, mask ...] -> final hidden states [B, hidden]."""
        for layer in range(self.config.num_hidden_layers):
            x = x + self._attention(layer, self._norm(x, f"layers.{layer}.input_layernorm"))
            x = x + self._feed_forward(layer, self._norm(x, f"layers.{layer}.post_attention_layernorm"))
        return self._norm(x, "norm")

    def embed(self, target, block: torch.Tensor) -> torch.Tensor:
        """Input of ``forward``: the target's embeddings of ``block`` [B] -> [B, hidden]."""
        return target.get_input_embeddings()(block)

    def guess(self, target, hidden: torch.Tensor, anchor: int) -> torch.Tensor:
        """Tokens [B - 1] for the hidden states [B, hidden] of a block: the target's head, position by position."""
        return target.lm_head(hidden[1:]).argmax(-1)

    def _fused(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self._norm(F.linear(hidden_states, self.weights["fc.weight"]), "hidden_norm")

    def _context(self, layer: int, features: torch.Tensor) -> torch.Tensor:
        """What a layer's keys and values of the context are projected from."""
        return features

    def _feed_forward(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        gated = F.silu(self._linear(layer, "mlp.gate_proj", x)) * self._linear(layer, "mlp.up_proj", x)
        return self._linear(layer, "mlp.down_proj", gated)

    def _attention(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        start, size = self.keys[layer].shape[1], x.shape[0]
        repeat = self.config.num_attention_heads // self.config.num_key_value_heads
        key, value = self._key_value(layer, x, start)
        key = torch.cat((self.keys[layer], key), 1).repeat_interleave(repeat, 0)
        value = torch.cat((self.values[layer], value), 1).repeat_interleave(repeat, 0)
        query = self._rotate(self._heads(layer, "q", x), start)
        scores = query @ key.mT * self.config.head_dim**-0.5
        hidden = ~self._visible(layer, torch.arange(start, start + size), torch.arange(start + size))
        out = self._softmax(layer, scores.masked_fill(hidden, float("-inf"))) @ value
        out = self._mixed(layer, x, out)
        return self._linear(layer, "self_attn.o_proj", out.transpose(0, 1).reshape(size, -1))

    def _mixed(self, layer: int, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Attention's output [heads, tokens, head_dim] on its way to its projection."""
        return out

    def _softmax(self, layer: int, scores: torch.Tensor) -> torch.Tensor:
        return scores.softmax(-1)

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
