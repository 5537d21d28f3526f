"""Reads a pair from folders or the hub's cache: configs, tokenizer files, headers. No weights, no network."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_dflash.checkpoints.catalogue import load_catalogue
from sglang_dflash.checkpoints.checks.case import Case, Plan
from sglang_dflash.checkpoints.checks.names import expected_tensors
from sglang_dflash.checkpoints.checks.tensors import TensorInfo, read_tensors
from sglang_dflash.checkpoints.checks.tokenizer_files import read_texts
from sglang_dflash.checkpoints.config import (
    from_speculators,
    is_speculators,
    local_folder,
    parse_draft_config,
    read_draft_json,
    read_json,
)
from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.doctor.class_defaults import filled
from sglang_dflash.tools.doctor.weights import estimated_bytes, stored_bytes


@dataclass(frozen=True)
class Reading:
    """A case, where it was read from, and the weights' bytes (estimated where the files are not here)."""

    case: Case
    target_folder: Path
    draft_folder: Path
    target_bytes: int
    draft_bytes: int
    estimated: tuple[str, ...]  # of "target" and "draft", those whose bytes are an estimate


def read(
    target: str, draft: str, plan: Plan, revision: str | None = None, draft_revision: str | None = None
) -> Reading:
    """Read a pair.

    Raises:
        DFlashError: a checkpoint is not on this machine, or one of its files cannot be read.
    """
    target_folder, draft_folder = _folder("TARGET", target, revision), _folder("DRAFT", draft, draft_revision)
    raw = read_draft_json(draft_folder, "DRAFT")
    raw = from_speculators(raw) if is_speculators(raw) else raw
    config = completed(read_json(target_folder / "config.json", "TARGET"))
    catalogue = load_catalogue()
    case = Case(
        target=config,
        draft=parse_draft_config(raw),
        raw=raw,
        architecture=(config.get("architectures") or [""])[0],
        plan=plan,
        target_entry=catalogue.of_target(target) or catalogue.of_target(str(target_folder)),
        draft_entry=catalogue.of_draft(draft) or catalogue.of_draft(str(draft_folder)),
        target_texts=read_texts(target_folder),
        draft_texts=read_texts(draft_folder),
        target_tensors=_tensors(target_folder, "target checkpoint", whole=Path(target).is_dir()),
        draft_tensors=_tensors(draft_folder, "draft checkpoint", whole=Path(draft).is_dir()),
    )
    stored = {"target": stored_bytes(target_folder), "draft": stored_bytes(draft_folder)}
    return Reading(
        case,
        target_folder,
        draft_folder,
        target_bytes=stored["target"] or estimated_bytes(config),
        draft_bytes=stored["draft"] or _draft_bytes(case),
        estimated=tuple(name for name, size in stored.items() if size is None),
    )


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A target's config with its class's defaults, where transformers has the class; nothing of it is run."""
    known = filled(config)
    if known is not None:
        return known
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING:
        return dict(config)
    whole = _parsed(CONFIG_MAPPING[kind], dict(config))
    # The file's own words come first: a class may rename or drop what a check looks at.
    merged = whole | {key: value for key, value in config.items() if key not in ("text_config",)}
    if whole.get("text_config"):
        merged["text_config"] = whole["text_config"] | dict(config.get("text_config") or {})
    return merged


def _parsed(kind, fields: dict[str, Any]) -> dict[str, Any]:
    """All fields of a config class, without those of the file that the class refuses: nothing here depends on them.

    (transformers' Nemotron-H class refuses the time step limits that it writes itself.)
    """
    try:
        return kind.from_dict(fields).to_dict()
    except Exception as error:  # each class validates in its own way
        refused = re.search(r"field '(\w+)'", str(error))
        if refused is None or refused[1] not in fields:
            first = str(error).strip().splitlines()[0]
            raise DFlashError("TARGET", f"config.json is refused: {first}", "restore the file") from None
        return _parsed(kind, {key: value for key, value in fields.items() if key != refused[1]})


def _folder(field: str, source: str, revision: str | None) -> Path:
    folder = local_folder(source, revision, field)
    if folder is None:
        raise DFlashError(
            field, f"{source} is not on this machine", f"fetch it (hf download {source}), or give a folder"
        )
    return folder


def _tensors(folder: Path, field: str, *, whole: bool) -> dict[str, TensorInfo] | None:
    """Headers of all files; None where the hub's cache holds only a part of them."""
    try:
        return read_tensors(folder)
    except DFlashError as error:
        if not whole:
            return None
        raise DFlashError(error.field.replace("draft checkpoint", field), error.problem, error.remedy) from None


def _draft_bytes(case: Case) -> int:
    """Two bytes a weight: published drafts are bfloat16."""
    if case.draft.unsupported_variant is not None:
        return estimated_bytes(case.raw)
    sizes = expected_tensors(case.draft).values()
    count = 0
    for shape in sizes:
        product = 1
        for size in shape:
            product *= size
        count += product
    return 2 * count
