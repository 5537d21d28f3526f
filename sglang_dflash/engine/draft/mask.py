"""The trained embedding that some checkpoints ship for the mask token."""

import logging

import torch

from sglang_dflash.checkpoints.config import MASK_EMBEDDING_FILE, mask_embedding_file
from sglang_dflash.errors import DFlashError
from sglang_dflash.host.model_api import get_parallel

logger = logging.getLogger(__name__)


def load_mask_embedding(
    source: str, mask_token_id: int, device: torch.device, revision: str | None = None
) -> torch.Tensor | None:
    """The trained mask embedding [hidden] beside a checkpoint, or None where it ships none.

    It replaces the target's row for the mask token in the draft's input only; the target keeps its own.

    Args:
        source: folder or Hugging Face id of the draft.
        revision: of a Hugging Face id.

    Raises:
        DFlashError: the file was made for another mask token, or holds a vector per position.
    """
    path = mask_embedding_file(source, revision)
    if get_parallel().tp_rank == 0:
        row = "the embedding's own row" if path is None else str(path)
        logger.info("sglang-dflash: mask token %d is embedded by %s", mask_token_id, row)
    if path is None:
        return None
    # A tensor file of torch, the published form; weights_only keeps it from running code.
    saved = torch.load(path, map_location=device, weights_only=True)
    if int(saved["mask_token_id"]) != mask_token_id:
        raise DFlashError(
            MASK_EMBEDDING_FILE,
            f"is for mask token {saved['mask_token_id']}, not {mask_token_id}",
            "use its config",
        )
    if saved.get("per_position"):
        raise DFlashError(MASK_EMBEDDING_FILE, "holds a vector per position", "use a checkpoint with one vector")
    return saved["embedding"]
