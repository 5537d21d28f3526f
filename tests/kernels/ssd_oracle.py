"""The state-space recurrence of Mamba-2 as a loop over tokens in float64, and random inputs for it."""

import torch

from sglang_dflash.kernels.ssd.naive import Head, Tokens


def ssd_loop(tokens: Tokens, head: Head, parents, state):
    """One request's tokens, parents (-1: after ``state`` [H, P, N]) -> outputs [n, H, P], states after each token."""
    x, b, c, time = (t.double() for t in tokens)
    rate, skip, bias = (t.double() for t in head)
    step = torch.log1p((time + bias).exp())
    share = x.shape[1] // b.shape[1]
    outputs, states = torch.zeros_like(x), []
    for i, parent in enumerate(parents):
        now = (state.double() if parent < 0 else states[parent]).clone()
        for h in range(x.shape[1]):
            now[h] *= (step[i, h] * rate[h]).exp()
            now[h] += step[i, h] * torch.outer(x[i, h], b[i, h // share])
            outputs[i, h] = now[h] @ c[i, h // share] + skip[h] * x[i, h]
        states.append(now)
    return outputs, torch.stack(states)


def ssd_case(tokens: tuple[int, ...], heads=(2, 4), dims=(5, 8), slots=7, seed=0, device="cpu"):
    """Tokens with leading dimensions ``tokens``, (G, H) ``heads``, (P, N) ``dims``; a Head; states [slots, H, P, N]."""
    torch.manual_seed(seed)
    (groups, many), (size, n) = heads, dims
    shapes = ((*tokens, many, size), (*tokens, groups, n), (*tokens, groups, n), (*tokens, many))
    drawn = Tokens(*(torch.randn(shape).to(device) for shape in shapes))
    head = Head(-torch.rand(many).to(device).mul(2).exp(), *torch.randn(2, many).to(device))
    return drawn, head, torch.randn(slots, many, size, n).to(device)


def cut(tokens: Tokens, where) -> Tokens:
    """Some of the tokens."""
    return Tokens(*(t[where] for t in tokens))
