"""Installs the CPU platform's hooks in a process where it is the current platform."""

import os

_installed = False


def install() -> None:
    """Argument defaults and torch twins of Triton helpers; idempotent, called before hooks are applied."""
    global _installed
    if _installed:
        return
    _installed = True
    # An eager forward may read the batch's own tensors: on a host nothing changes them underneath it.
    os.environ.setdefault("SGLANG_EAGER_INPUT_NO_COPY", "1")
    from sglang_dflash.cpu import aten, defaults, operators, slots
    from sglang_dflash.cpu.host.hooks import (
        keep_memory_unpinned,
        keep_sizes,
        keep_threads_unpinned,
        replace_dense_projections,
        replace_triton_helpers,
    )
    from sglang_dflash.cpu.recurrent import arguments as linear_arguments

    aten.register()
    defaults.install()
    linear_arguments.install()
    replace_triton_helpers(slots.write_row_spans, slots.last_slots, slots.write_extend_rows, slots.pack_front_slots)
    replace_dense_projections(operators.dense)
    keep_threads_unpinned()
    keep_sizes()
    keep_memory_unpinned()
