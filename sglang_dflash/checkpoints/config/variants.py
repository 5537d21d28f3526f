"""Kinds of drafts: what we serve, what only SGLang's worker serves, and what nobody does."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sglang_dflash.checkpoints.config.fields import FIX, Fields
from sglang_dflash.errors import DFlashError

LAGUNA, MUSE = "DFlashLagunaForCausalLM", "MuseGlimmerAssistantModel"
_WITH_SELECTOR = ("DFlash2DraftModel", "DFlash2BeamDraftModel", "MiniMaxDFlash2DraftModel")
# Names under which drafts are published and registered with SGLang.
ARCHITECTURES = ("DFlashDraftModel", LAGUNA, MUSE, *_WITH_SELECTOR)
_OF_OTHERS = {"LiLiCorrDraftModel": "LiLiCorr"}
_GATINGS = {True: "per-head", False: None, None: None, "disabled": None, "per-head": "per-head"}


@dataclass(frozen=True)
class Convolution:
    """Grouped dynamic convolution along the block (DFlash 2)."""

    kernel_size: int  # taps: a position and the ones before it
    group_size: int  # channels that share a coefficient


@dataclass(frozen=True)
class Selector:
    """Candidate selector along the block (DFlash 2)."""

    rank: int  # width of the two codebooks
    top_k: int  # candidates per position


@dataclass(frozen=True)
class Activation:
    """Feed-forward gate: SiLU, or where ``limit`` is given gate * sigmoid(alpha * gate) * (up + 1), clamped."""

    alpha: float = 1.0
    limit: float | None = None


def parse_architecture(raw: Mapping[str, Any]) -> str:
    """First of ``architectures``; DFlashError where it is no DFlash draft."""
    names = raw.get("architectures") or [""]
    if names[0] not in ARCHITECTURES and names[0] not in _OF_OTHERS:
        known = ", ".join((*ARCHITECTURES, *_OF_OTHERS))
        raise DFlashError("draft architectures", f"is {names!r}, not a DFlash draft", f"one of {known}")
    return names[0]


def variant_of_others(fields: Fields, architecture: str) -> str | None:
    """Name of the variant that only SGLang's worker implements, None for what we serve.

    Raises:
        DFlashError: neither implements it.
    """
    if fields.first("sample_from_anchor"):
        raise DFlashError(
            "draft sample_from_anchor",
            "is true: every position predicts its successor",
            "use a draft whose masks predict themselves",
        )
    if fields.text.get("use_qk_norm") is False:
        raise DFlashError("draft use_qk_norm", "is false", "use a draft with query and key norms")
    if architecture in _OF_OTHERS:
        return _OF_OTHERS[architecture]
    projector = fields.first("projector_type")
    if projector is not None:
        if projector != "domino":
            raise DFlashError("draft projector_type", f"is {projector!r}", "use a plain DFlash draft")
        return "Domino"
    lilicorr = any(key.startswith("lilicorr_") for key in fields.own)
    return "LiLiCorr" if fields.own.get("lilicorr_enabled", lilicorr) else None


def parse_convolution(fields: Fields, hidden_size: int) -> Convolution | None:
    """The convolution's sizes, None for a draft without one."""
    taps, group = _pair(fields, "conv_kernel_size", "conv_group_size")
    if not taps:
        return None
    if hidden_size % group:
        raise DFlashError("draft conv_group_size", f"is {group}, which does not divide {hidden_size}", FIX)
    return Convolution(taps, group)


def parse_selector(fields: Fields, architecture: str, vocab_size: int | None) -> Selector | None:
    """The selector's sizes, None for a draft without one."""
    rank, top_k = _pair(fields, "selector_rank", "selector_top_k")
    if not rank:
        if architecture in _WITH_SELECTOR:
            raise DFlashError("draft selector_rank", "is missing", f"{architecture} has a selector: {FIX}")
        return None
    if vocab_size is None or top_k > vocab_size:
        raise DFlashError("draft selector_top_k", f"is {top_k} of a vocabulary of {vocab_size}", FIX)
    return Selector(rank, top_k)


def _pair(fields: Fields, first: str, second: str) -> tuple[int, int]:
    values = [fields.own_integer(key, minimum=0) or 0 for key in (first, second)]
    if bool(values[0]) != bool(values[1]):
        raise DFlashError(f"draft {first}", f"is {values[0]} beside {second} {values[1]}", "give both")
    return values[0], values[1]


def parse_gate(fields: Fields, architecture: str) -> str | None:
    """How attention's output is gated (Laguna): "per-head", "per-element" or not at all."""
    if architecture != LAGUNA:
        return None
    value = fields.text.get("gating", True)
    if value != "per-element" and value not in _GATINGS:
        raise DFlashError("draft gating", f"is {value!r}", "use per-head, per-element or disabled")
    return "per-element" if value == "per-element" else _GATINGS[value]


def parse_activation(fields: Fields) -> Activation:
    """The feed-forward's gate; DFlashError where it is none of the two published ones."""
    name = fields.text.get("hidden_act", "silu")
    if name == "silu":
        return Activation()
    if name != "swigluoai":
        raise DFlashError("draft hidden_act", f"is {name!r}", "use a draft with silu or swigluoai")
    return Activation(fields.number("swiglu_alpha", 1.702), fields.number("swiglu_limit", 7.0))


def parse_quantisation(raw: Mapping[str, Any]) -> str | None:
    """Name of the method in ``quantization_config``, None for full-precision weights."""
    given = raw.get("quantization_config")
    if not given:
        return None
    return str(given.get("quant_method") or given.get("quant_algo") or "unnamed")
