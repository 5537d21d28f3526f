"""Linear-attention operators as loops over tokens in float64, and random inputs for them."""

import random

import torch
from kernel_inputs import random_parents

EPS = 1e-6


def conv_loop(inputs, parents, state, weight, bias, silu):
    """One request: inputs [n, C], parents (-1: after ``state`` [C, K - 1]) -> outputs [n, C], windows [n, C, K - 1]."""
    outputs, windows = [], []
    for x, parent in zip(inputs.double(), parents, strict=True):
        before = state.double() if parent < 0 else windows[parent]
        window = torch.cat((before, x[:, None]), 1)
        y = (window * weight.double()).sum(1) + (0 if bias is None else bias.double())
        outputs.append(y * torch.sigmoid(y) if silu else y)
        windows.append(window[:, 1:])
    return torch.stack(outputs), torch.stack(windows)


def delta_loop(q, k, v, decay, strength, parents, state):
    """q, k [n, H, K], v [n, HV, V], gates [n, HV], state [HV, V, K] -> outputs, states after each token."""
    q, k, v, decay, strength, state = (x.double() for x in (q, k, v, decay, strength, state))
    share = v.shape[1] // k.shape[1]
    outputs, states = torch.zeros_like(v), []
    for i, parent in enumerate(parents):
        now = (state if parent < 0 else states[parent]).clone()
        for head in range(v.shape[1]):
            key, query = (x[i, head // share] / (x[i, head // share].square().sum() + EPS).sqrt() for x in (k, q))
            now[head] *= decay[i, head].exp()
            update = strength[i, head] * (v[i, head] - now[head] @ key)
            now[head] += torch.outer(update, key)
            outputs[i, head] = now[head] @ query / q.shape[2] ** 0.5
        states.append(now)
    return outputs, torch.stack(states)


def chain(n: int) -> list[int]:
    return list(range(-1, n - 1))


def trees(bs: int, width: int, seed: int) -> torch.Tensor:
    """Random parents [bs, W] int32, some with padding at the end."""
    rng = random.Random(seed)
    return torch.tensor([random_parents(width, rng, padded=True) for _ in range(bs)], dtype=torch.int32)


def conv_case(tokens: tuple[int, ...], channels=6, taps=4, slots=7, bias=True, seed=0, device="cpu"):
    """x [*tokens, C], weight [C, K], bias [C] or None, states [slots, C, K - 1]."""
    torch.manual_seed(seed)
    x, weight = torch.randn(*tokens, channels), torch.randn(channels, taps)
    bias = torch.randn(channels) if bias else None
    states = torch.randn(slots, channels, taps - 1)
    return tuple(None if t is None else t.to(device) for t in (x, weight, bias, states))


def delta_case(tokens: tuple[int, ...], heads=(2, 4), dims=(8, 5), slots=7, seed=0, device="cpu"):
    """q, k [*tokens, H, K], v [*tokens, HV, V], a, b [*tokens, HV], rate, bias [HV], states [slots, HV, V, K]."""
    torch.manual_seed(seed)
    (few, many), (key, value) = heads, dims
    shapes = (
        (*tokens, few, key),
        (*tokens, few, key),
        (*tokens, many, value),
        (*tokens, many),
        (*tokens, many),
        (many,),
        (many,),
        (slots, many, value, key),
    )
    return tuple(torch.randn(shape).to(device) for shape in shapes)
