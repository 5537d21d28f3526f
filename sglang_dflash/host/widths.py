"""The two widths of a round in SGLang's settings: tokens of a draft pass (B), nodes of a verify pass (W).

SGLang knows one, ``speculative_num_draft_tokens``, with ``speculative_dflash_block_size`` as another name of it. Here
they are W and B: the target, its graphs, its recurrent states and the metrics read the first; whatever is made for the
draft is made in a scope in which the first is B; and slots are reserved for the wider of the two.
"""

import contextlib
from collections.abc import Iterator

from sglang.srt.runtime_context import get_spec

from sglang_dflash.host.contract import Touch

ALLOC_LEN = "sglang.srt.mem_cache.allocation_sizing.get_alloc_len_per_decode"

_WIDTHS = "SGLang keeps the draft's block size and the verify width apart"
TOUCHES = (
    Touch(
        "sglang.srt.mem_cache.allocation_sizing:get_alloc_len_per_decode",
        "hooked (around): a round writes as many slots as the wider of block and verify window",
        _WIDTHS,
    ),
    Touch(
        "sglang.srt.runtime_context:get_spec",
        "its speculative_num_draft_tokens and speculative_dflash_block_size: verify width and block size",
        _WIDTHS,
    ),
)


def install() -> None:
    """Reserve slots for the wider of the two widths; once per process."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register(ALLOC_LEN, _alloc_len, HookType.AROUND)


def _alloc_len(original) -> int:
    spec = get_spec()
    if (spec.speculative_algorithm or "").upper() != "DFLASH":
        return original()
    return max(original(), spec.speculative_dflash_block_size or 0)


def verify_width() -> int:
    """Nodes per request of the target's verify pass."""
    return int(get_spec().speculative_num_draft_tokens)


def block_size() -> int:
    """Tokens per request of a draft pass: the verify width, unless another was asked for."""
    return int(get_spec().speculative_dflash_block_size or verify_width())


@contextlib.contextmanager
def draft_width(size: int) -> Iterator[None]:
    """A scope in which SGLang makes backends, pools and graphs for passes of ``size`` tokens per request."""
    with get_spec().override(speculative_num_draft_tokens=size):
        yield


@contextlib.contextmanager
def window_width() -> Iterator[None]:
    """A scope in which SGLang reserves slots for the wider of the two widths."""
    with draft_width(max(verify_width(), block_size())):
        yield
