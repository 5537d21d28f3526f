"""Packed copies of large float32 weights: which there are, what they compute, and that they follow the weights."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from sglang.srt.layers.quantization.unquant import UnquantizedEmbeddingMethod, UnquantizedLinearMethod
from sglang.srt.model_executor.model_runner_components.weight_updater import WeightUpdater
from torch import nn

from sglang_dflash.cpu import operators, packing
from sglang_dflash.cpu.host import runtime
from sglang_dflash.engine.draft.head import WholeHead
from sglang_dflash.engine.updates.derived import recompute_derived
from sglang_dflash.kernels.dense import PlainMatrix, matrix_of
from sglang_dflash.kernels.dense.packed import PackedMatrix

SIDE = 512  # SIDE * SIDE is the least that is packed


class Layer(nn.Module):
    def __init__(self, rows: int, columns: int = SIDE, method=UnquantizedLinearMethod, dtype=torch.float32):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, columns).to(dtype), requires_grad=False)
        self.quant_method = method()


class Model(nn.Module):
    """A large projection, a small one, one in bfloat16, and a head with three rows of padding, tied to an embedding."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.large, self.small, self.bf16 = Layer(SIDE), Layer(8), Layer(SIDE, dtype=torch.bfloat16)
        self.embedding = self.lm_head = Layer(SIDE + 8, method=UnquantizedEmbeddingMethod)
        self.lm_head.shard_indices = SimpleNamespace(num_org_elements=SIDE + 5)

    def load_weights(self, named):
        for name, tensor in named:
            self.get_parameter(name).data.copy_(tensor)


def packed_model(**keywords) -> Model:
    model = Model()
    packing.pack(packing.large_layers(model), model, **keywords)
    return model


def test_large_plain_weights_are_packed_and_the_rest_is_not():
    model = packed_model()
    assert isinstance(matrix_of(model.large), PackedMatrix)
    assert isinstance(matrix_of(model.lm_head, SIDE + 5), PackedMatrix)
    assert all(isinstance(matrix_of(layer), PlainMatrix) for layer in (model.small, model.bf16))
    # The padded head is another matrix.
    assert isinstance(matrix_of(model.lm_head), PlainMatrix)
    assert list(packing.large_layers(model).values()) == [SIDE, SIDE, SIDE + 5]


def test_memory_decides(caplog):
    with caplog.at_level("INFO"):
        model = packed_model(free_bytes=4 << 20)
    assert "packed" not in vars(model.large) and "not packed" in caplog.text


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 8, 64])
@pytest.mark.parametrize("padded", [1, 4])
@pytest.mark.parametrize("has_bias", [True, False])
def test_products_are_torchs(rows, padded, has_bias):
    layer = packed_model().large
    matrix = matrix_of(layer)
    matrix.padded_rows = padded
    x, residual = torch.randn(rows, SIDE), torch.randn(rows, SIDE)
    bias = torch.randn(SIDE) if has_bias else None
    expected = F.linear(x.double(), layer.weight.double(), None if bias is None else bias.double()).float()
    torch.testing.assert_close(matrix.project(x, bias), expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(matrix.add(residual, x, bias), residual + expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(operators.dense(layer, x, bias), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("padded", [1, 4])
def test_a_row_alone_is_the_row_among_others(padded):
    matrix = matrix_of(packed_model().large)
    matrix.padded_rows = padded
    x = torch.randn(64, SIDE)
    together = matrix.project(x)
    for rows in (1, 2, 8, 16):
        torch.testing.assert_close(matrix.project(x[:rows]), together[:rows], atol=2e-5, rtol=1e-6)


def test_rows_of_several_dimensions():
    layer = packed_model().large
    x = torch.randn(2, 3, SIDE)
    torch.testing.assert_close(matrix_of(layer).project(x), F.linear(x, layer.weight), atol=1e-4, rtol=1e-5)


def test_copies_follow_an_update():
    model = packed_model()
    matrix, head = (
        matrix_of(model.large),
        WholeHead(model.lm_head.weight[: SIDE + 5], matrix_of(model.lm_head, SIDE + 5)),
    )
    x = torch.randn(3, SIDE)
    matrix.project(x), head(x)
    model.large.weight.data.mul_(-2)
    model.embedding.weight.data.copy_(torch.randn(SIDE + 8, SIDE))
    recompute_derived(model)
    torch.testing.assert_close(matrix.project(x), F.linear(x, model.large.weight), atol=1e-4, rtol=1e-5)
    assert torch.equal(head(x), F.linear(x, model.lm_head.weight[: SIDE + 5]).argmax(-1))


@pytest.fixture
def updater(monkeypatch):
    """SGLang's updater of a packed model, as a server without our worker calls it."""
    for name in runtime.UPDATES:
        monkeypatch.setattr(WeightUpdater, name, getattr(WeightUpdater, name))
    monkeypatch.setattr(WeightUpdater, "_assert_weight_cache_inactive", lambda self, op: None)
    runtime.follow_updates(recompute_derived)
    runtime.follow_updates(recompute_derived)  # once is enough
    model = packed_model()
    others = dict.fromkeys(("tp_rank", "gpu_id", "model_config", "update_model_fields", "recapture_cuda_graph"))
    return WeightUpdater(
        device="cpu", custom_weight_loaders={}, get_model=lambda: model, get_model_runner=lambda: None, **others
    )


@pytest.mark.parametrize("fails", [False, True])
def test_copies_follow_sglangs_own_updates(updater, fails):
    model, x = updater.get_model(), torch.randn(3, SIDE)
    named = [("large.weight", torch.randn(SIDE, SIDE))]
    before = matrix_of(model.large).project(x)
    success, _ = updater.load_weights_from_distributed(named + [("unknown", x)] * fails)
    assert success is not fails
    now = matrix_of(model.large).project(x)
    torch.testing.assert_close(now, F.linear(x, named[0][1]), atol=1e-4, rtol=1e-5)
    assert not torch.allclose(before, now, atol=1e-2)
