"""Where a checkpoint's files are on this machine."""

import json
import logging
import re
from pathlib import Path
from typing import Any

from sglang_dflash.errors import DFlashError

logger = logging.getLogger(__name__)

MASK_EMBEDDING_FILE = "mask_embedding.pt"
# ModelOpt's; SGLang reads it where config.json says nothing.
_QUANTISATION_FILE = "hf_quant_config.json"
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def mask_embedding_file(source: str | Path, revision: str | None = None) -> Path | None:
    """The trained mask embedding published beside some drafts, None where there is none.

    A ``torch.save`` of ``{"embedding": [hidden], "mask_token_id": int}``. From a repository it is fetched, which SGLang
    does with files of weights only; without a network, what an earlier start fetched is used.
    """
    if Path(source).expanduser().is_dir():
        path = Path(source).expanduser() / MASK_EMBEDDING_FILE
        return path if path.is_file() else None
    if not _HUB_ID.fullmatch(str(source)):
        return None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RemoteEntryNotFoundError

    try:
        return Path(hf_hub_download(str(source), MASK_EMBEDDING_FILE, revision=revision))
    except RemoteEntryNotFoundError:
        return None
    except (LocalEntryNotFoundError, HfHubHTTPError):
        logger.warning("sglang-dflash: %s cannot be asked for its %s now", source, MASK_EMBEDDING_FILE)
        return None


def local_folder(source: str | Path, revision: str | None = None, field: str = "--model-path") -> Path | None:
    """A model's folder on this machine: the path, or the hub cache's snapshot; None if there is none.

    Raises:
        DFlashError: naming ``field``, where ``source`` is neither a folder nor a Hugging Face id.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if "://" in str(source):
        return None
    if not _HUB_ID.fullmatch(str(source)):
        raise DFlashError(field, f"{source} is no folder", "give a folder or a Hugging Face id")
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(str(source), "config.json", revision=revision)
    return Path(cached).parent if isinstance(cached, str) else None


def read_json(path: Path, field: str) -> dict[str, Any]:
    """The object in a json file; DFlashError naming ``field`` where there is none."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise DFlashError(field, f"has no {path.name} in {path.parent}", "point it to a checkpoint folder") from None
    except ValueError as error:
        raise DFlashError(field, f"{path} is not valid json: {error}", "restore the file") from None
    if not isinstance(value, dict):
        raise DFlashError(field, f"{path} does not hold an object", "restore the file")
    return value


def read_draft_json(folder: Path, field: str) -> dict[str, Any]:
    """A draft's ``config.json``, with the quantisation that some tools write into a file of its own.

    Raises:
        DFlashError: naming ``field``, as ``read_json`` does.
    """
    raw = read_json(folder / "config.json", field)
    given = raw.get("quantization_config") or raw.get("compression_config")
    if not given and (folder / _QUANTISATION_FILE).is_file():
        given = read_json(folder / _QUANTISATION_FILE, field).get("quantization")
    return raw | {"quantization_config": given} if given else raw
