"""The kernels' bandwidth command runs anywhere; what it times says something only on a GPU."""

import torch

from sglang_dflash.tools.bench.kernelbw import Shape, copy_ceiling, measure


def test_measures_every_op():
    shape = Shape(bs=2, width=4, layers=2, heads=1, head_dim=16, target_layers=2, slots=64)
    rows = measure("cpu", shape, torch.float32)
    assert [row.op for row in rows] == [
        "prepare_block",
        "window_rows",
        "qk_norm_rope",
        "accept_chain",
        "inject_kv",
        "accept_tree",
        "visibility",
        "tree_links",
        "tree_mask",
        "compact_kv",
        "block_convolution",
        "selected_path",
    ]
    assert all(row.microseconds > 0 and row.bytes > 0 for row in rows)
    inject = next(row for row in rows if row.op == "inject_kv")
    assert inject.bytes == 2 * (2 * 4) * (2 * 2 * 1 * 16) * 4  # read and written: tokens x channels x fp32
    assert copy_ceiling("cpu", megabytes=1).gigabytes_per_second > 0
