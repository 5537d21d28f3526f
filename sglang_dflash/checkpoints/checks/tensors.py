"""Are the draft's tensors exactly those of its config? Reads the headers of safetensors files, no weights."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from sglang_dflash.checkpoints.checks.names import TensorNames
from sglang_dflash.checkpoints.config import DraftConfig, read_json
from sglang_dflash.errors import DFlashError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_DTYPES = ("F64", "F32", "F16", "BF16")
# Ids, not weights.
_INTEGERS = "d2t"


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
                raise DFlashError(f"draft tensor {name}", f"is stored again in {path.name}", "keep it in one file")
            found[name] = info
    return found or None


def check_tensors(tensors: Mapping[str, TensorInfo], draft: DraftConfig) -> None:
    """Compare a checkpoint's tensors with what its config asks for.

    Raises:
        DFlashError: a tensor is missing, unknown, mis-shaped or of an unusable type, by name.
    """
    names = TensorNames(draft)
    missing = dict(names.required)
    for name, info in tensors.items():
        bare = names.bare(name)
        if bare is None:
            continue
        covered = names.covers(bare)
        if not covered:
            raise DFlashError(
                f"draft tensor {name}",
                "is not part of the architecture in config.json",
                "check the draft's config.json",
            )
        if info.dtype in _DTYPES or draft.quantisation is None:
            _check_one(name, info, names.shape(bare))
        for each in covered:
            missing.pop(each, None)
    if missing:
        raise DFlashError("draft checkpoint", f"lacks {_named(missing)}", "use the complete checkpoint")


def _check_one(name: str, info: TensorInfo, shape: tuple[int, ...] | None) -> None:
    if shape is not None and info.shape != shape:
        raise DFlashError(
            f"draft tensor {name}",
            f"has shape {list(info.shape)}, config.json asks for {list(shape)}",
            "check the draft's config.json",
        )
    if info.dtype not in _DTYPES and not name.endswith(_INTEGERS):
        raise DFlashError(f"draft tensor {name}", f"is of type {info.dtype}", f"use one of {', '.join(_DTYPES)}")


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
    """What the header of a safetensors file says; the library compares it with the file's size."""
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            return {name: TensorInfo(each.get_dtype(), tuple(each.get_shape())) for name, each in slices.items()}
    except FileNotFoundError:
        raise DFlashError("draft checkpoint", f"lacks the file {path.name}", "use the complete checkpoint") from None
    except SafetensorError as error:
        raise DFlashError("draft checkpoint", f"{path.name} is damaged: {error}", "fetch it again") from None
