"""The causal convolution against a loop in float64, and against transformers' own."""

import pytest
import torch
from linear_oracles import chain, conv_case, conv_loop, trees
from transformers.models.qwen3_next import modeling_qwen3_next as reference

from sglang_dflash.kernels.causal_conv.naive import conv_nodes, conv_ragged, conv_step, node_rows

TAPS = (2, 3, 4)
close = dict(rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("taps", TAPS)
@pytest.mark.parametrize("bias", (False, True))
def test_step(taps, bias):
    x, weight, bias, states = conv_case((3,), taps=taps, bias=bias)
    slots, before = torch.tensor([5, 0, 2]), states.clone()
    y = conv_step(x, states, slots, weight, bias, True)
    for row, slot in enumerate(slots):
        wanted, windows = conv_loop(x[row : row + 1], [-1], before[slot], weight, bias, True)
        torch.testing.assert_close(y[row].double(), wanted[0], **close)
        torch.testing.assert_close(states[slot].double(), windows[0], **close)
    assert torch.equal(states[[1, 3, 4, 6]], before[[1, 3, 4, 6]])


@pytest.mark.parametrize("lens", ((1,), (9,), (1, 2, 1), (70, 1, 3, 16)))
@pytest.mark.parametrize("silu", (False, True))
@pytest.mark.parametrize("taps", TAPS)
def test_ragged(lens, silu, taps):
    x, weight, bias, states = conv_case((sum(lens),), taps=taps)
    bounds = [sum(lens[:i]) for i in range(len(lens) + 1)]
    slots, before = torch.tensor([6, 1, 0, 3])[: len(lens)], states.clone()
    y = conv_ragged(x, bounds, states, slots, weight, bias, silu)
    for slot, start, end in zip(slots, bounds[:-1], bounds[1:], strict=True):
        wanted, windows = conv_loop(x[start:end], chain(end - start), before[slot], weight, bias, silu)
        torch.testing.assert_close(y[start:end].double(), wanted, **close)
        torch.testing.assert_close(states[slot].double(), windows[-1], **close)


@pytest.mark.parametrize("width", (1, 2, 16))
@pytest.mark.parametrize("taps", TAPS)
@pytest.mark.parametrize("tree", (False, True))
def test_nodes(width, taps, tree):
    bs = 4
    x, weight, bias, states = conv_case((bs, width), taps=taps)
    parents = trees(bs, width, seed=taps) if tree else None
    slots, before = torch.tensor([6, 1, 0, 3]), states.clone()
    windows = torch.full((bs, width, x.shape[2], taps - 1), torch.nan)
    rows = node_rows(parents, bs, width, taps)
    y = conv_nodes(x, rows, states, slots, weight, bias, True, windows)
    assert torch.equal(states, before)
    for row, slot in enumerate(slots):
        path = parents[row].tolist() if tree else chain(width)
        wanted, after = conv_loop(x[row], path, before[slot], weight, bias, True)
        torch.testing.assert_close(y[row].double(), wanted, **close)
        torch.testing.assert_close(windows[row].double(), after, **close)


def test_transformers_step_and_prompt():
    x, weight, _, states = conv_case((1, 21), bias=False)
    mine = torch.zeros_like(states[:1])
    prompt, slot = x[0, :20], torch.tensor([0])
    wanted = reference.causal_conv1d_fn(prompt.T[None], weight, activation="silu")
    y = conv_ragged(prompt, [0, 20], mine, slot, weight, None, True)
    torch.testing.assert_close(y, wanted[0].T, **close)
    theirs = prompt[-3:].T[None].clone()
    wanted = reference.causal_conv1d_update(x[:, 20:].transpose(1, 2), theirs, weight, activation="silu")
    y = conv_step(x[0, 20:], mine, slot, weight, None, True)
    torch.testing.assert_close(y, wanted[..., 0], **close)
    torch.testing.assert_close(mine, theirs, **close)
