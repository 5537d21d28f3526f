"""Are the draft's tensors exactly those of its config? Reads the headers of safetensors files, no weights."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from sglang_dflash.config import DraftConfig, read_json
from sglang_dflash.errors import DFlashError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_DTYPES = ("F64", "F32", "F16", "BF16")
# Exports that carry these are accepted: embedding and head are the target's, rotary tables are computed.
_IGNORED = ("embed_tokens.", "lm_head.", "rotary_emb.")
_MAX_HEADER = 100 << 20


class TensorInfo(NamedTuple):
    """What a safetensors header says about one tensor."""

    dtype: str  # safetensors name, "BF16"
    shape: tuple[int, ...]


def read_tensors(folder: Path) -> dict[str, TensorInfo] | None:
    """Every tensor of a checkpoint folder by name; None where it holds no safetensors files (older formats).

    Raises:
        DFlashError: a file is missing or damaged, or a tensor is stored twice.
    """
    found: dict[str, TensorInfo] = {}
    for path in _files(folder):
        for name, info in _header(path).items():
            if name in found:
                raise DFlashError(
                    f"draft tensor {name}", f"is stored again in {path.name}", "keep it in one file"
                )
            found[name] = info
    return found or None


def bare_name(name: str) -> str | None:
    """A checkpoint tensor's name as the draft model knows it; None for those accepted and ignored."""
    bare = name.removeprefix("model.")
    return None if any(part in bare for part in _IGNORED) else bare


def expected_tensors(draft: DraftConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that the draft must have; it may have no other."""
    hidden, head_dim = draft.hidden_size, draft.head_dim
    queries, keys = draft.num_heads * head_dim, draft.num_kv_heads * head_dim
    layer = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
        "self_attn.o_proj.weight": (hidden, queries),
        "self_attn.q_norm.weight": (head_dim,),
        "self_attn.k_norm.weight": (head_dim,),
        "mlp.gate_proj.weight": (draft.intermediate_size, hidden),
        "mlp.up_proj.weight": (draft.intermediate_size, hidden),
        "mlp.down_proj.weight": (hidden, draft.intermediate_size),
    }
    if draft.attention_bias:
        layer |= {
            f"self_attn.{part}_proj.bias": (size,)
            for part, size in zip("qkvo", (queries, keys, keys, hidden), strict=True)
        }
    whole = {
        "fc.weight": (hidden, draft.num_context_features * hidden),
        "hidden_norm.weight": (hidden,),
        "norm.weight": (hidden,),
    }
    for i in range(draft.num_layers):
        whole |= {f"layers.{i}.{name}": shape for name, shape in layer.items()}
    return whole


def check_tensors(tensors: Mapping[str, TensorInfo], draft: DraftConfig) -> None:
    """Compare a checkpoint's tensors with ``expected_tensors``; of a plain DFlash draft only.

    Raises:
        DFlashError: a tensor is missing, unknown, mis-shaped or of an unusable type, by name.
    """
    expected = expected_tensors(draft)
    given = {bare: (name, info) for name, info in tensors.items() if (bare := bare_name(name)) is not None}
    for bare, (name, info) in given.items():
        if bare not in expected:
            raise DFlashError(
                f"draft tensor {name}",
                "is not part of the architecture in config.json",
                "check the draft's config.json",
            )
        _check_one(name, info, expected[bare])
    missing = [name for name in expected if name not in given]
    if missing:
        raise DFlashError("draft checkpoint", f"lacks {_named(missing)}", "use the complete checkpoint")


def _check_one(name: str, info: TensorInfo, shape: tuple[int, ...]) -> None:
    if info.shape != shape:
        raise DFlashError(
            f"draft tensor {name}",
            f"has shape {list(info.shape)}, config.json asks for {list(shape)}",
            "check the draft's config.json",
        )
    if info.dtype not in _DTYPES:
        raise DFlashError(
            f"draft tensor {name}", f"is of type {info.dtype}", f"use one of {', '.join(_DTYPES)}"
        )


def _named(names: Iterable[str], limit: int = 3) -> str:
    names = list(names)
    more = f" and {len(names) - limit} more tensors" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _files(folder: Path) -> list[Path]:
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    if (folder / INDEX_FILE).is_file():
        index = read_json(folder / INDEX_FILE, "draft checkpoint")
        return [folder / name for name in sorted(set(index.get("weight_map", {}).values()))]
    return sorted(folder.glob("*.safetensors"))


def _header(path: Path) -> dict[str, TensorInfo]:
    """Header of a safetensors file: 8 bytes of length, little-endian, then json."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= _MAX_HEADER:
                raise ValueError(f"header length {length}")
            raw = json.loads(file.read(length))
            entries = {
                name: TensorInfo(e["dtype"], tuple(e["shape"]))
                for name, e in raw.items()
                if name != "__metadata__"
            }
            end = max((e["data_offsets"][1] for name, e in raw.items() if name != "__metadata__"), default=0)
        if path.stat().st_size != 8 + length + end:
            raise ValueError(f"{path.stat().st_size} bytes where the header announces {8 + length + end}")
    except FileNotFoundError:
        raise DFlashError(
            "draft checkpoint", f"lacks the file {path.name}", "use the complete checkpoint"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise DFlashError("draft checkpoint", f"{path.name} is damaged: {error}", "fetch it again") from None
    return entries
