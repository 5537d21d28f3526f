"""A draft checkpoint's configuration; reads json only, no model library."""

from sglang_dflash.checkpoints.config.attention import LayerAttention, Rope
from sglang_dflash.checkpoints.config.draft import (
    DEFAULT_BLOCK_SIZE,
    DEFAULT_MASK_TOKEN,
    DraftConfig,
    load_draft_config,
    parse_draft_config,
    spaced_layer_ids,
)
from sglang_dflash.checkpoints.config.files import (
    MASK_EMBEDDING_FILE,
    local_folder,
    mask_embedding_file,
    read_draft_json,
    read_json,
)
from sglang_dflash.checkpoints.config.speculators import from_speculators, is_speculators
from sglang_dflash.checkpoints.config.variants import ARCHITECTURES, Activation, Convolution, Selector

__all__ = [
    "ARCHITECTURES",
    "DEFAULT_BLOCK_SIZE",
    "DEFAULT_MASK_TOKEN",
    "MASK_EMBEDDING_FILE",
    "Activation",
    "Convolution",
    "DraftConfig",
    "LayerAttention",
    "Rope",
    "Selector",
    "from_speculators",
    "is_speculators",
    "load_draft_config",
    "local_folder",
    "mask_embedding_file",
    "parse_draft_config",
    "read_draft_json",
    "read_json",
    "spaced_layer_ids",
]
