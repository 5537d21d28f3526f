"""Every published kind of draft besides the plain one, as deviations from it.

Laguna (gates, norms per captured layer), MiMo (sinks, scaled values, partial rotation), Muse, DFlash 2 (convolution
and selector), and drafts with embedding and head of their own, in z-lab's or vLLM's speculators layout.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from transformers.models.qwen3.modeling_qwen3 import Qwen3Config, Qwen3RotaryEmbedding

from sglang_dflash.reference.draft import ReferenceDraft

_FOREIGN = ("model_type", "architectures", "dflash_config", "quantization_config", "auto_map")


class ReferenceKind(ReferenceDraft):
    """A draft of any kind; what its checkpoint has decides which deviations it makes."""

    def __init__(self, folder: str | Path):
        super().__init__(folder)
        renamed = {"encoder.fc.weight": "fc.weight", "encoder.output_norm_enc.weight": "hidden_norm.weight"}
        self.weights = {renamed.get(k, k): v for k, v in self.weights.items()}
        self.sizes = len(self.target_layer_ids), self.config.num_attention_heads, self.config.head_dim
        if self.own.get("use_swa"):
            self.config.layer_types = ["sliding_attention"] * self.config.num_hidden_layers
            self.config.sliding_window, self.is_causal = self.own["swa_window_size"], False
        for direction in (self.own.get("causal"), self.raw.get("is_causal")):
            self.is_causal = self.is_causal if direction is None else direction
        if self.raw["architectures"] == ["MuseGlimmerAssistantModel"]:
            self.is_causal = False
        for layer in range(self.config.num_hidden_layers):
            self._split(layer)
        self._set_rope()

    def layer_config(self) -> Qwen3Config:
        if "transformer_layer_config" in self.raw and not self.own:
            self.own = dict(self.raw, target_layer_ids=[i - 1 for i in self.raw["aux_hidden_state_layer_ids"]])
            self.own["causal"] = False if self.raw.get("sliding_window_non_causal") else None
            self.raw = self.raw | self.raw["transformer_layer_config"] | {"architectures": self.raw["architectures"]}
        fields = {k: v for k, v in self.raw.items() if k not in _FOREIGN}
        if isinstance(fields.get("sliding_window"), int):
            fields["use_sliding_window"] = True
        return Qwen3Config(**fields)

    def _set_rope(self) -> None:
        self.rotary_dim = int(self.config.head_dim * (self.raw.get("partial_rotary_factor") or 1.0))
        rotated = self.config.to_dict() | {"head_dim": self.rotary_dim}
        self.rope = Qwen3RotaryEmbedding(Qwen3Config.from_dict(rotated))

    def _split(self, layer: int) -> None:
        """Matrices stored fused, as their parts."""
        fused = self.weights.get(f"layers.{layer}.self_attn.qkv_proj.weight")
        if fused is not None:
            _, heads, width = self.sizes
            rows = [heads * width, self.config.num_key_value_heads * width, self.config.num_key_value_heads * width]
            for part, weight in zip("qkv", fused.split(rows), strict=True):
                self.weights[f"layers.{layer}.self_attn.{part}_proj.weight"] = weight

    # --- ends ---

    def embed(self, target, block: torch.Tensor) -> torch.Tensor:
        own = self.weights.get("embed_tokens.weight") if self._ships("has_embed_tokens") else None
        x = super().embed(target, block) if own is None else F.embedding(block, own)
        return x * self.own.get("input_embedding_scale", 1.0)

    def guess(self, target, hidden: torch.Tensor, anchor: int) -> torch.Tensor:
        logits = self._logits(target, hidden[1:])
        if "candidate_selector.predecessor_codebook" not in self.weights:
            return self._to_target(logits.argmax(-1))
        logits = logits * self.own.get("output_multiplier", 1.0)
        cap = self.own.get("final_logit_softcapping", self.raw.get("final_logit_softcapping"))
        logits = torch.tanh(logits / cap) * cap if cap else logits
        return self._select(logits, hidden[1:], anchor)

    def _logits(self, target, hidden: torch.Tensor) -> torch.Tensor:
        own = self.weights.get("lm_head.weight") if self._ships("has_lm_head") else None
        return target.lm_head(hidden) if own is None else F.linear(hidden, own)

    def _ships(self, key: str) -> bool:
        return "speculators_model_type" in self.raw or bool(self.raw.get(key))

    def _to_target(self, rows: torch.Tensor) -> torch.Tensor:
        return rows + self.weights["d2t"].long()[rows] if "d2t" in self.weights else rows

    def _select(self, logits: torch.Tensor, hidden: torch.Tensor, anchor: int) -> torch.Tensor:
        """Walk from the anchor: at each position the candidate that scores best after the token before it."""
        weights = {k.split(".")[1]: v for k, v in self.weights.items() if k.startswith("candidate_selector.")}
        state = F.linear(hidden, weights["hidden_projection"])
        tokens, before = [], anchor
        for row in range(len(logits)):
            best, rows = logits[row].topk(self.own["selector_top_k"])
            ids = self._to_target(rows)
            score = best + weights["successor_codebook"][ids] @ (weights["predecessor_codebook"][before] * state[row])
            before = int(ids[score.argmax()])
            tokens.append(before)
        return torch.tensor(tokens)

    # --- layers ---

    def _fused(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if "aux_hidden_norms.0.weight" in self.weights:
            taps = hidden_states.chunk(self.sizes[0], -1)
            hidden_states = torch.cat([self._norm(x, f"aux_hidden_norms.{i}", True) for i, x in enumerate(taps)], -1)
        return super()._fused(hidden_states)

    def _context(self, layer: int, features: torch.Tensor) -> torch.Tensor:
        laguna = "aux_hidden_norms.0.weight" in self.weights
        return self._norm(features, f"layers.{layer}.input_layernorm") if laguna else features

    def _attention(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        return self._convolved(layer, "attention_conv", x, super()._attention)

    def _feed_forward(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        return self._convolved(layer, "mlp_conv", x, self._gated)

    def _gated(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        if self.raw.get("hidden_act", "silu") == "silu":
            return super()._feed_forward(layer, x)
        limit, alpha = self.raw["swiglu_limit"], self.raw["swiglu_alpha"]
        gate = self._linear(layer, "mlp.gate_proj", x).clamp(max=limit)
        up = self._linear(layer, "mlp.up_proj", x).clamp(-limit, limit)
        return self._linear(layer, "mlp.down_proj", gate * torch.sigmoid(alpha * gate) * (up + 1))

    def _mixed(self, layer: int, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Attention's output [heads, tokens, head_dim] before its projection: scaled values, gates."""
        out = out * self.own.get("attention_value_scale", 1.0)
        if f"layers.{layer}.self_attn.g_proj.weight" in self.weights:
            gate = F.softplus(self._linear(layer, "self_attn.g_proj", x))
            out = out * gate.view(len(x), len(out), -1).transpose(0, 1)
        return out

    def _softmax(self, layer: int, scores: torch.Tensor) -> torch.Tensor:
        sinks = self.weights.get(f"layers.{layer}.self_attn.attention_sink_bias")
        if sinks is None:
            return scores.softmax(-1)
        sink = sinks[:, None, None].expand(*scores.shape[:2], 1)
        return torch.cat((scores, sink), -1).softmax(-1)[..., :-1]

    def _convolved(self, layer: int, name: str, x: torch.Tensor, part) -> torch.Tensor:
        base = self.weights.get(f"layers.{layer}.{name}.base_kernel")
        if base is None:
            return part(layer, x)
        _, taps, width = base.shape
        dynamic = self._linear(layer, f"{name}.kernel_projection", x).view(len(x), 2, taps, -1)
        kernel = base + dynamic.repeat_interleave(width // dynamic.shape[-1], -1)
        return self._convolve(part(layer, self._convolve(x, kernel[:, 0])), kernel[:, 1])

    @staticmethod
    def _convolve(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        """x [tokens, width], kernel [tokens, taps, width]: tap t reaches t tokens back, to nothing before the first."""
        taps = range(kernel.shape[1])
        return sum(kernel[:, t] * F.pad(x, (0, 0, t, 0))[: len(x)] for t in taps)

    def _rotate(self, heads: torch.Tensor, start: int) -> torch.Tensor:
        rotated = super()._rotate(heads[..., : self.rotary_dim], start)
        return torch.cat((rotated, heads[..., self.rotary_dim :]), -1)

    def _norm(self, x: torch.Tensor, name: str, plain: bool = False) -> torch.Tensor:
        weight = self.weights[f"{name}.weight"]
        if self.raw.get("use_gemma_norm") and not plain:
            weight = weight + 1
        return F.rms_norm(x, x.shape[-1:], weight, self.config.rms_norm_eps)
