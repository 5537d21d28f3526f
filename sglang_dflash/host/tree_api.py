"""Draft trees on SGLang's own backends: which of them take one, and the settings under which they do.

SGLang's kernels of attention and of recurrent layers take trees, for its own algorithms that draft them; a server
started with DFLASH sets them up for chains. Three settings differ, made before pools and graphs exist.
"""

import torch
from sglang.srt.layers.attention.hybrid_linear_attn_backend import HybridLinearAttnBackend, Mamba2AttnBackend
from sglang.srt.layers.attention.linear.gdn_backend import GDNAttnBackend
from sglang.srt.platforms import current_platform
from sglang.srt.speculative import dflash_utils

from sglang_dflash.errors import DFlashError
from sglang_dflash.host.contract import Touch
from sglang_dflash.host.recurrent_state import keep_window_per_node

_TREES = "SGLang lets a worker say that it verifies trees"
_HYBRID = "sglang.srt.layers.attention.hybrid_linear_attn_backend"
TOUCHES = (
    Touch(
        "sglang.srt.speculative.dflash_utils:resolve_dflash_verify_mask_policy",
        "replaced for trees: graphs of the verify pass are captured with a mask",
        _TREES,
        ("attn_backend",),
    ),
    Touch(f"{_HYBRID}:HybridLinearAttnBackend", "the two halves of a hybrid target's backend", _TREES),
    Touch(f"{_HYBRID}:MambaAttnBackendBase", "its topk is set: above 1, recurrent layers read a tree's links", _TREES),
    *(
        Touch(target, "takes trees", _TREES)
        for target in (
            f"{_HYBRID}:Mamba2AttnBackend",
            "sglang.srt.layers.attention.linear.gdn_backend:GDNAttnBackend",
            "sglang.srt.layers.attention.triton_backend:TritonAttnBackend",
        )
    ),
)
_FIELD = "SGLANG_DFLASH_PROPOSER"
_CHAINS = "use a proposer of chains for this target"


def on_own_platform() -> bool:
    """True where the target runs on our CPU platform, whose backends take parents and visibility as they are."""
    return current_platform.is_out_of_tree()


def allow_trees(target_runner) -> None:
    """Pools and graphs of SGLang's backends for trees; called before either is made.

    Raises:
        DFlashError: the target attends through sliding windows.
    """
    if target_runner.sliding_window_size:
        # In columns of the verify window, where a tree's nodes stand apart from their parents.
        raise DFlashError(_FIELD, "proposes trees, and a GPU's backends count a sliding window in columns", _CHAINS)
    keep_window_per_node()
    dflash_utils.resolve_dflash_verify_mask_policy = _with_mask


def _with_mask(attn_backend) -> tuple[str, bool]:
    return type(attn_backend).__name__, True


class MaskReader:
    """How SGLang's Triton attention reads a flat mask."""

    def __init__(self, backend):
        self._backend = backend
        # Its one-stage kernel does; the others take it that a node sees the whole context.
        self.reads_context = bool(backend.enable_deterministic)

    def mask_of_graphs(self) -> torch.Tensor | None:
        """The mask that captured graphs read, [cells] uint8; None where there are none."""
        mask = self._backend.verify_mask
        return None if mask is None else mask.buffer


def expect_trees(attn_backend) -> MaskReader:
    """Set the target's backends up for trees; called when they exist and no graph does.

    Raises:
        DFlashError: one of them does not take trees.
    """
    # Imports Triton, which the CPU platform goes without.
    from sglang.srt.layers.attention.triton_backend import TritonAttnBackend

    full, recurrent = attn_backend, None
    if isinstance(attn_backend, HybridLinearAttnBackend):
        full, recurrent = attn_backend.full_attn_backend, attn_backend.linear_attn_backend
    if not isinstance(full, TritonAttnBackend):
        _refuse(full, "start with --attention-backend triton")
    # Kernels for chains on AMD cards, which do not look at a mask.
    full.use_verify_splitkv = full.use_verify_shared_kv = False
    if recurrent is None:
        return MaskReader(full)
    if not isinstance(recurrent, GDNAttnBackend | Mamba2AttnBackend):
        _refuse(recurrent, _CHAINS)
    if recurrent.req_to_token_pool.mamba_pool.mamba_cache.intermediate_ssm is None:
        raise DFlashError(
            "--enable-linear-replayssm-spec", "keeps no state per node, which a tree needs", "start without it"
        )
    recurrent.topk = 2
    return MaskReader(full)


def _refuse(backend, remedy: str) -> None:
    raise DFlashError(_FIELD, f"proposes trees, which {type(backend).__name__} does not verify", remedy)
