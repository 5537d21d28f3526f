"""Dense projections: oneDNN's equal torch's, above and below the size from which they are used."""

import pytest
import torch

from sglang_dflash.kernels import dense
from sglang_dflash.kernels.dense import naive, onednn

SHAPES = [(1, 8, 8), (3, 40, 72), (16, 128, 896), (17, 130, 701), (129, 64, 130)]


@pytest.mark.parametrize("rows, inputs, outputs", SHAPES)
@pytest.mark.parametrize("batch", [(), (2,)])
@torch.inference_mode()
def test_project_equals_its_twin(rows, inputs, outputs, batch):
    x, weight, bias = torch.randn(*batch, rows, inputs), torch.randn(outputs, inputs), torch.randn(outputs)
    torch.testing.assert_close(onednn.project(x, weight), naive.project(x, weight), atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(onednn.project(x, weight, bias), naive.project(x, weight, bias), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("rows, inputs, outputs", SHAPES)
@torch.inference_mode()
def test_add_equals_its_twin_and_leaves_the_residual(rows, inputs, outputs):
    x, weight, residual = torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.randn(rows, outputs)
    before = residual.clone()
    torch.testing.assert_close(onednn.add(residual, x, weight), naive.add(residual, x, weight), atol=2e-4, rtol=1e-4)
    assert torch.equal(residual, before)


@torch.inference_mode()
def test_views_of_wider_rows_are_taken():
    x, weight = torch.randn(64, 3 * 256)[:, 256:512], torch.randn(512, 256)
    torch.testing.assert_close(onednn.project(x, weight), x @ weight.t(), atol=2e-4, rtol=1e-4)


def test_the_choice():
    assert dense.choose("cpu", torch.float32).project is onednn.project
    assert dense.choose("cpu", torch.bfloat16).project is naive.project
    assert dense.choose("cuda", torch.float32).project is naive.project
