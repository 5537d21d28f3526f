"""The mask token: its id, and the trained embedding that some checkpoints ship for it."""

from pathlib import Path

import torch

from sglang_dflash.config import MASK_EMBEDDING_FILE, DraftConfig, local_folder
from sglang_dflash.errors import DFlashError


def resolve_mask_token_id(config: DraftConfig, tokenizer, vocab_size: int) -> int:
    """The id that fills a block: the checkpoint's, else that of its mask token in the target's tokenizer.

    Raises:
        DFlashError: neither is known, or the id lies outside the target's vocabulary.
    """
    mask_token_id = config.mask_token_id
    if mask_token_id is None and tokenizer is not None:
        mask_token_id = tokenizer.get_vocab().get(config.mask_token)
        if mask_token_id is None:
            mask_token_id = tokenizer.mask_token_id
    if mask_token_id is None:
        raise DFlashError(
            "draft mask_token_id", "is not given and the tokenizer has no mask token", "set it in dflash_config"
        )
    if not 0 <= mask_token_id < vocab_size:
        raise DFlashError("draft mask_token_id", f"{mask_token_id} is outside {vocab_size} ids", "fix dflash_config")
    return int(mask_token_id)


def load_mask_embedding(source: str, mask_token_id: int, device: torch.device) -> torch.Tensor | None:
    """The trained mask embedding [hidden] beside a checkpoint, or None where it ships none.

    It replaces the target's row for the mask token in the draft's input only; the target keeps its own.

    Raises:
        DFlashError: the file was made for another mask token, or holds a vector per position.
    """
    folder = local_folder(source)
    path = None if folder is None else Path(folder) / MASK_EMBEDDING_FILE
    if path is None or not path.is_file():
        return None
    # A tensor file of torch, the published form; weights_only keeps it from running code.
    saved = torch.load(path, map_location=device, weights_only=True)
    if int(saved["mask_token_id"]) != mask_token_id:
        raise DFlashError(
            MASK_EMBEDDING_FILE, f"is for mask token {saved['mask_token_id']}, not {mask_token_id}", "use its config"
        )
    if saved.get("per_position"):
        raise DFlashError(MASK_EMBEDDING_FILE, "holds a vector per position", "use a checkpoint with one vector")
    return saved["embedding"]
