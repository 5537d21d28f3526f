"""A draft checkpoint's ``config.json`` as one frozen value."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_dflash.checkpoints.config.attention import LayerAttention, Rope, is_qwen3, parse_layers, parse_rope
from sglang_dflash.checkpoints.config.fields import FIX, Fields, integers, positive
from sglang_dflash.checkpoints.config.files import local_folder, read_draft_json
from sglang_dflash.checkpoints.config.speculators import from_speculators, is_speculators, keeps_own_ends
from sglang_dflash.checkpoints.config.variants import (
    LAGUNA,
    MUSE,
    Activation,
    Convolution,
    Selector,
    parse_activation,
    parse_architecture,
    parse_convolution,
    parse_gate,
    parse_quantisation,
    parse_selector,
    variant_of_others,
)
from sglang_dflash.errors import DFlashError

DEFAULT_BLOCK_SIZE = 16
DEFAULT_MASK_TOKEN = "<|MASK|>"


@dataclass(frozen=True)
class DraftConfig:
    """All that the draft model, the checks and the worker take from a draft's ``config.json``.

    ``target_layer_ids`` are 0-based: id i is the output of the target's layer i. None means that the
    checkpoint leaves them to the spacing rule of ``layer_ids_for``.
    """

    architecture: str
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    rms_norm_eps: float
    max_position_embeddings: int
    attention_bias: bool
    rope: Rope
    layers: tuple[LayerAttention, ...]
    block_size: int  # trained block, anchor included
    mask_token: str
    mask_token_id: int | None
    target_layer_ids: tuple[int, ...] | None
    num_target_layers: int | None
    vocab_size: int | None
    final_logit_softcapping: float | None
    output_multiplier: float  # of the head's logits, before the cap
    embedding_scale: float  # of the block's embeddings
    attention_sinks: bool  # a learned logit per head that takes a share of every softmax
    value_scale: float  # of the values, target's and block's alike
    gate: str | None  # of attention's output: "per-head", "per-element"
    norms_taps: bool  # each captured feature has a norm of its own, before fc
    norms_context: bool  # fused features pass each layer's input norm, as the block does
    gemma_norms: bool  # norms multiply by 1 + weight
    activation: Activation
    convolution: Convolution | None
    selector: Selector | None
    ships_embedding: bool
    ships_head: bool
    optional_ends: bool  # what it ships may be left out of the checkpoint: the target's takes its place
    draft_vocab_size: int | None  # rows of a head of its own over a part of the vocabulary; None: all of it
    quantisation: str | None  # method of quantised weights
    unsupported_variant: str | None  # name of a draft variant that only SGLang's own worker implements

    @property
    def num_context_features(self) -> int:
        """How many target layers are fused into one context feature (the K of arXiv 2602.06036)."""
        return self.num_layers if self.target_layer_ids is None else len(self.target_layer_ids)

    def layer_ids_for(self, num_target_layers: int) -> tuple[int, ...]:
        """Target layers to capture: those of the checkpoint, else ``spaced_layer_ids``."""
        if self.target_layer_ids is not None:
            return self.target_layer_ids
        return spaced_layer_ids(num_target_layers, self.num_layers)


def spaced_layer_ids(num_target_layers: int, count: int) -> tuple[int, ...]:
    """``count`` ids, evenly spaced from the second layer to the third last (arXiv 2602.06036, section 4).

    Raises:
        DFlashError: the target is too shallow for the rule.
    """
    if count == 1:
        return (num_target_layers // 2,)
    first, last = 1, num_target_layers - 3
    if last < first:
        raise DFlashError(
            "draft target_layer_ids",
            f"are not given and cannot be spaced over {num_target_layers} target layers",
            "name them in the draft's config.json",
        )
    return tuple(round(first + (last - first) * i / (count - 1)) for i in range(count))


def load_draft_config(source: str | Path | Mapping[str, Any], revision: str | None = None) -> DraftConfig | None:
    """The config of a draft given as a dict, a folder or a Hugging Face id.

    None where an id's config.json is not on this machine: it is fetched later, and checked then.

    Raises:
        DFlashError: no or unreadable config.json in a folder, or a field that ``parse_draft_config`` refuses.
    """
    if isinstance(source, Mapping):
        return parse_draft_config(source)
    folder = local_folder(source, revision, "--speculative-draft-model-path")
    if folder is None:
        return None
    return parse_draft_config(read_draft_json(folder, "--speculative-draft-model-path"))


def parse_draft_config(raw: Mapping[str, Any]) -> DraftConfig:
    """Parse a ``config.json`` of z-lab's layout, either generation, or of vLLM's speculators library.

    Raises:
        DFlashError: a field is missing, of the wrong type, out of its range, or not supported, by name.
    """
    fields = Fields(from_speculators(raw) if is_speculators(raw) else raw)
    text, architecture = fields.text, parse_architecture(fields.raw)
    heads = fields.integer("num_attention_heads")
    hidden_size = fields.integer("hidden_size")
    num_layers = fields.integer("num_hidden_layers")
    # transformers' Qwen3Config has this default whatever the hidden size is.
    head_dim = fields.integer("head_dim", default=128 if is_qwen3(text) else hidden_size // heads)
    layers = parse_layers(fields, num_layers, causal_windows=architecture != MUSE)
    layer_ids = fields.first("target_layer_ids")
    vocab_size = fields.integer("vocab_size", default=0) or None
    return DraftConfig(
        architecture=architecture,
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=heads,
        num_kv_heads=fields.integer("num_key_value_heads", default=heads),
        head_dim=head_dim,
        intermediate_size=fields.integer("intermediate_size"),
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        max_position_embeddings=fields.integer("max_position_embeddings", default=32768),
        attention_bias=bool(text.get("attention_bias", False)),
        rope=parse_rope(fields, head_dim, set(text.get("layer_types") or ())),
        layers=layers,
        block_size=_block_size(fields),
        mask_token=_mask_token(fields),
        mask_token_id=fields.own_integer("mask_token_id", minimum=0),
        target_layer_ids=None if layer_ids is None else integers("target_layer_ids", layer_ids),
        num_target_layers=fields.own_integer("num_target_layers"),
        vocab_size=vocab_size,
        final_logit_softcapping=float(fields.first("final_logit_softcapping") or 0.0) or None,
        output_multiplier=fields.own_number("output_multiplier", 1.0),
        embedding_scale=fields.own_number("input_embedding_scale", 1.0),
        attention_sinks=bool(fields.flag("attention_sink_bias")),
        value_scale=positive("attention_value_scale", fields.own.get("attention_value_scale"), 1.0),
        gate=parse_gate(fields, architecture),
        norms_taps=architecture == LAGUNA,
        norms_context=architecture == LAGUNA,
        gemma_norms=bool(text.get("use_gemma_norm", False)),
        activation=parse_activation(fields),
        convolution=parse_convolution(fields, hidden_size),
        selector=parse_selector(fields, architecture, vocab_size),
        quantisation=parse_quantisation(fields.raw),
        unsupported_variant=variant_of_others(fields, architecture),
        **_ends(fields, vocab_size),
    )


def _ends(fields: Fields, vocab_size: int | None) -> dict[str, Any]:
    """Which of embedding and head the checkpoint ships, by its own word or as its library always does."""
    raw = fields.raw
    exported = keeps_own_ends(raw)
    rows = fields.own_integer("draft_vocab_size")
    reduced = rows if rows is not None and rows != vocab_size else None
    head = exported or bool(raw.get("has_lm_head"))
    if reduced is not None and not head:
        raise DFlashError("draft draft_vocab_size", f"is {rows}, but the draft ships no head", FIX)
    embedding = exported or bool(raw.get("has_embed_tokens"))
    if (head or embedding) and vocab_size is None:
        raise DFlashError("draft vocab_size", "is missing, but the draft ships embedding or head", FIX)
    return {
        "ships_embedding": embedding,
        "ships_head": head,
        "optional_ends": exported,
        "draft_vocab_size": reduced,
    }


def _block_size(fields: Fields) -> int:
    return fields.own_integer("block_size", minimum=2) or DEFAULT_BLOCK_SIZE


def _mask_token(fields: Fields) -> str:
    value = fields.first("mask_token")
    if value is None:
        return DEFAULT_MASK_TOKEN
    if not isinstance(value, str) or not value:
        raise DFlashError("draft mask_token", f"is {value!r}, not a piece of text", FIX)
    return value
