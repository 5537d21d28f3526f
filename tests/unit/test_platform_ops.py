"""Operators of the CPU platform against SGLang's reference forwards."""

from types import SimpleNamespace

import pytest
import torch

from sglang_dflash.cpu import operators
from sglang_dflash.cpu.host.operators import ROTARY_CLASSES, Gemma4RMSNorm, RMSNorm, SiluAndMul

TOLERANCE = {torch.float32: dict(atol=2e-6, rtol=2e-6), torch.bfloat16: dict(atol=2e-2, rtol=2e-2)}


def norm_like(hidden, dtype, **changes):
    """The fields of an RMSNorm that its forwards read."""
    fields = dict(
        hidden_size=hidden,
        variance_epsilon=1e-6,
        weight=torch.randn(hidden, dtype=dtype),
        variance_size_override=None,
        cast_x_before_out_mul=False,
        fp32_residual=False,
        override_orig_dtype=None,
    )
    norm = SimpleNamespace(**fields | changes)
    norm.forward_native = lambda *args: RMSNorm.forward_native(norm, *args)
    return norm


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(1, 128), (17, 96), (3, 5, 32)])
def test_rms_norm(shape, dtype):
    torch.manual_seed(0)
    norm, x = norm_like(shape[-1], dtype), torch.randn(shape, dtype=dtype) * 0.02
    torch.testing.assert_close(operators.rms_norm(norm, x), RMSNorm.forward_native(norm, x), **TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_rms_norm_with_residual(dtype):
    torch.manual_seed(0)
    norm, x, residual = norm_like(64, dtype), torch.randn(7, 64, dtype=dtype), torch.randn(7, 64, dtype=dtype)
    got = operators.rms_norm(norm, x.clone(), residual.clone())
    expected = RMSNorm.forward_native(norm, x, residual)
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, **TOLERANCE[dtype])


@pytest.mark.parametrize(
    "changes",
    [{"variance_size_override": 32}, {"cast_x_before_out_mul": True}, {"fp32_residual": True}],
    ids=str,
)
def test_special_norms_keep_the_reference(changes):
    torch.manual_seed(0)
    norm, x, residual = norm_like(64, torch.float32, **changes), torch.randn(3, 64), torch.randn(3, 64)
    for mine, theirs in zip(
        operators.rms_norm(norm, x, residual), RMSNorm.forward_native(norm, x, residual), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_inverse_rms_of_a_strided_tensor():
    torch.manual_seed(0)
    x = torch.randn(5, 8, 16)[:, :3]
    expected = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
    torch.testing.assert_close(operators.inverse_rms(x, 1e-6), expected, atol=1e-6, rtol=1e-6)


def test_silu_and_mul():
    x = torch.randn(9, 40)
    torch.testing.assert_close(operators.silu_and_mul(None, x.clone()), SiluAndMul.forward_native(None, x))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "neox, rotary_dim", [(True, 16), (False, 16), (True, 8)], ids=["neox", "interleaved", "partial"]
)
def test_rotary_embedding(neox, rotary_dim, dtype):
    torch.manual_seed(0)
    rotary_class = ROTARY_CLASSES[0]
    from sglang.srt.layers.rotary_embedding.utils import apply_rotary_emb

    angles = torch.outer(torch.arange(50.0), 1 / 100 ** (torch.arange(0, rotary_dim, 2) / rotary_dim))
    rotary = SimpleNamespace(
        is_neox_style=neox,
        rotary_dim=rotary_dim,
        head_size=16,
        cos_sin_cache=torch.cat((angles.cos(), angles.sin()), -1).to(dtype),
        _apply_rotary_emb_wrapped=apply_rotary_emb,
    )
    rotary.forward_native = lambda *args: rotary_class.forward_native(rotary, *args)
    positions, query, key = (
        torch.tensor([0, 7, 49]),
        torch.randn(3, 64, dtype=dtype),
        torch.randn(3, 32, dtype=dtype),
    )
    for mine, theirs in zip(
        operators.rotary_embedding(rotary, positions, query, key),
        rotary_class.forward_native(rotary, positions, query, key),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, **TOLERANCE[dtype])


def test_the_rotary_classes_differ_in_their_tables_only():
    assert len({rotary.forward_native for rotary in ROTARY_CLASSES}) == 1


def test_layers_reach_the_operators_through_sglang_s_dispatch(monkeypatch):
    """The registry holds our forwards under the platform's key."""
    from sglang.kernels.fused_op import BaseFusedOp

    from sglang_dflash.cpu import NAME

    monkeypatch.setattr(BaseFusedOp, "_oot_forward_registry", {})
    operators.install(NAME)
    registry = BaseFusedOp._oot_forward_registry[NAME]
    assert registry[RMSNorm] is operators.rms_norm and registry[SiluAndMul] is operators.silu_and_mul
    assert all(registry[rotary] is operators.rotary_embedding for rotary in ROTARY_CLASSES)


def test_products_in_another_dtype():
    from sglang_dflash.cpu import aten

    aten.register()
    aten.register()
    a, b = torch.randn(3, 4).bfloat16(), torch.randn(4, 2).bfloat16()
    torch.testing.assert_close(torch.mm(a, b, out_dtype=torch.float32), a.float() @ b.float())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("with_scale, shift", [(True, 0.0), (True, 1.0), (False, 0.0)])
def test_gemma_rms_norm(with_scale, shift, dtype):
    torch.manual_seed(0)
    norm, x = Gemma4RMSNorm(32, scale_shift=shift, with_scale=with_scale), torch.randn(3, 5, 32, dtype=dtype)
    norm.weight.data.copy_(torch.randn(32))
    # What SGLang's kernels compute: a norm without a scale of its own applies its weight, too.
    with_weight = x.double() / (x.double().square().mean(-1, keepdim=True) + norm.eps).sqrt()
    expected = with_weight * (norm.weight.double() + (shift if with_scale else 0))
    torch.testing.assert_close(operators.gemma_rms_norm(norm, x), expected.to(dtype), **TOLERANCE[dtype])
    if with_scale:
        torch.testing.assert_close(operators.gemma_rms_norm(norm, x), norm.forward_native(x), **TOLERANCE[dtype])
