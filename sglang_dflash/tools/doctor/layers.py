"""What a target's layers keep per token and per request, from its completed config."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FULL, SLIDING, STATE, NOTHING = "full", "sliding", "state", "nothing"
_KINDS = {
    "full_attention": FULL,
    "indexed_attention": FULL,
    "attention": FULL,
    "sliding_attention": SLIDING,
    "chunked_attention": SLIDING,
    "linear_attention": STATE,
    "mamba": STATE,
    "moe": NOTHING,
    "mlp": NOTHING,
}
_PATTERN = {"M": STATE, "*": FULL, "E": NOTHING, "-": NOTHING}


@dataclass(frozen=True)
class State:
    """Recurrent state of one layer, in elements: the state proper and the convolution's last inputs."""

    temporal: int
    conv_channels: int
    conv_width: int  # inputs kept per channel: kernel size less one
    dense_windows: bool = False  # verify keeps a whole convolution window per position

    def scratch_columns(self, width: int, tree: bool) -> int:
        """Convolution inputs per channel that verify keeps for ``width`` positions: a chain's windows overlap."""
        return width * self.conv_width if tree or self.dense_windows else width + self.conv_width - 1


@dataclass(frozen=True)
class Layers:
    """All layers of a target."""

    kinds: tuple[str, ...]
    kv_elements: tuple[int, ...]  # K and V of one token, per layer, before any split over ranks
    kv_heads: tuple[int, ...]  # heads that ranks share; 0: a latent that every rank keeps whole
    window: int | None  # of the sliding layers, tokens
    state: State | None

    def count(self, kind: str) -> int:
        """Layers of a kind."""
        return self.kinds.count(kind)

    def kv_per_token(self, kind: str, ranks: int) -> int:
        """K and V elements of one token in one rank, summed over the layers of a kind."""
        total = 0
        for each, elements, heads in zip(self.kinds, self.kv_elements, self.kv_heads, strict=True):
            if each == kind:
                total += elements if heads == 0 else elements * max(1, heads // ranks) // heads
        return total


def read_layers(text: Mapping[str, Any]) -> Layers:
    """The layers of a language model's config; its class's defaults have to be filled in."""
    kinds = layer_kinds(text)
    widths = [_kv_width(text, i, kind) for i, kind in enumerate(kinds)]
    window = text.get("sliding_window") if SLIDING in kinds else None
    state = _state(text) if STATE in kinds else None
    return Layers(kinds, tuple(w for w, _ in widths), tuple(h for _, h in widths), window, state)


def layer_kinds(text: Mapping[str, Any]) -> tuple[str, ...]:
    """Kind of every layer, in whichever way the config names them."""
    named = text.get("layers_block_type") or text.get("layer_types")
    if named:
        return tuple(_KINDS.get(name, FULL) for name in named)
    if text.get("hybrid_override_pattern"):
        return tuple(_PATTERN.get(mark, FULL) for mark in text["hybrid_override_pattern"])
    count = text.get("num_hidden_layers") or 0
    if text.get("linear_attn_config"):  # numbered from 1
        linear = set(text["linear_attn_config"].get("kda_layers", ()))
        return tuple(STATE if i + 1 in linear else FULL for i in range(count))
    return (FULL,) * count


def is_latent(text: Mapping[str, Any]) -> bool:
    """True for latent attention: one compressed row per token, shared by all heads."""
    return bool(text.get("kv_lora_rank"))


def _kv_width(text: Mapping[str, Any], layer: int, kind: str) -> tuple[int, int]:
    """(elements per token, heads to split) of one layer."""
    if kind in (STATE, NOTHING):
        return 0, 1
    if is_latent(text):
        return text["kv_lora_rank"] + text.get("qk_rope_head_dim", 0), 0
    heads = text.get("num_key_value_heads") or text.get("num_attention_heads") or 1
    own = (text.get("per_layer_config") or {}).get(f"{layer:02d}", {})
    if kind == SLIDING:
        heads = text.get("swa_num_key_value_heads") or heads
        head_dim = text.get("swa_head_dim") or text.get("head_dim")
    else:
        heads = text.get("num_global_key_value_heads") or heads
        head_dim = own.get("head_dim") or text.get("global_head_dim") or text.get("head_dim")
    head_dim = head_dim or text["hidden_size"] // text["num_attention_heads"]
    return heads * (head_dim + (text.get("v_head_dim") or head_dim)), heads


def _state(text: Mapping[str, Any]) -> State | None:
    if text.get("linear_num_value_heads"):  # gated delta net
        keys = text["linear_num_key_heads"] * text["linear_key_head_dim"]
        values = text["linear_num_value_heads"] * text["linear_value_head_dim"]
        temporal = values * text["linear_key_head_dim"]
        return State(temporal, 2 * keys + values, text["linear_conv_kernel_dim"] - 1)
    if text.get("mamba_num_heads"):  # Mamba 2
        inner = text["mamba_num_heads"] * text["mamba_head_dim"]
        channels = inner + 2 * text["n_groups"] * text["ssm_state_size"]
        return State(inner * text["ssm_state_size"], channels, text["conv_kernel"] - 1)
    own = text.get("linear_attn_config") or {}
    heads = own.get("num_heads") or text.get("linear_num_heads")  # Kimi delta attention
    if not heads:
        return None
    head_dim = own.get("head_dim") or text["linear_head_dim"]
    kernel = own.get("short_conv_kernel_size") or text["linear_conv_kernel_dim"]
    return State(heads * head_dim * head_dim, 3 * heads * head_dim, kernel - 1, dense_windows=True)
