"""The selector's walk, step by step."""

import pytest
import torch

from sglang_dflash.kernels.selected_path.naive import greedy_path


@pytest.mark.parametrize("positions", [1, 2, 3, 7, 15])
def test_each_position_takes_the_best_candidate_after_the_one_before(positions):
    scores = torch.randn(9, positions, 5, 5, generator=torch.Generator().manual_seed(positions))
    scores[:, 0] = scores[:, 0, :1]  # the anchor is every predecessor of the first position
    path = greedy_path(scores)
    for row, chosen in zip(scores, path.tolist(), strict=True):
        before, wanted = 0, []
        for position in row:
            before = int(position[before].argmax())
            wanted.append(before)
        assert chosen == wanted
