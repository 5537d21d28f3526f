"""Routed experts and joint norms of the CPU platform, token by token and in float64."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from sglang_dflash.cpu.experts import activation_of, run_experts
from sglang_dflash.cpu.operators import joint_norm, joint_square_sums
from sglang_dflash.errors import DFlashError

EXPERTS, HIDDEN, INNER, TOKENS = 5, 12, 8, 9


def config(**more):
    fields = dict(activation="silu", is_gated=True, gemm1_alpha=None, gemm1_clamp_limit=None, gate_up_interleaved=True)
    return SimpleNamespace(**fields | {"no_combine": False, "apply_router_weight_on_input": False} | more)


def gpt_oss(gate, up, alpha=1.702, limit=1.0):
    gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    return gate * torch.sigmoid(alpha * gate) * (up + 1)


KINDS = {  # configuration, what it does to (gate, up), how they lie in a row
    "silu": (config(), lambda g, u: F.silu(g) * u, "halves"),
    "gelu": (config(activation="gelu"), lambda g, u: F.gelu(g, approximate="tanh") * u, "halves"),
    "gpt-oss": (config(gemm1_alpha=1.702, gemm1_clamp_limit=1.0), gpt_oss, "turns"),
    "gpt-oss in halves": (
        config(gemm1_alpha=1.702, gemm1_clamp_limit=1.0, gate_up_interleaved=False),
        gpt_oss,
        "halves",
    ),
    "clamped": (
        config(gemm1_clamp_limit=0.5),
        lambda g, u: F.silu(g).clamp(max=0.5) * u.clamp(-0.5, 0.5),
        "halves",
    ),
    "relu2 ungated": (config(activation="relu2", is_gated=False), lambda x, _: F.relu(x) ** 2, "whole"),
    "silu ungated": (config(is_gated=False), lambda x, _: F.silu(x), "whole"),
}


def parts(row, layout):
    return {"halves": row.chunk(2, -1), "turns": (row[::2], row[1::2]), "whole": (row, None)}[layout]


@pytest.mark.parametrize("biased", (False, True))
@pytest.mark.parametrize("kind", KINDS)
def test_experts_one_token_at_a_time(kind, biased):
    moe_config, activation, layout = KINDS[kind]
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    width = INNER * (1 if layout == "whole" else 2)
    first, second, x = draw(EXPERTS, width, HIDDEN), draw(EXPERTS, HIDDEN, INNER), draw(TOKENS, HIDDEN)
    first_bias, second_bias = draw(EXPERTS, width), draw(EXPERTS, HIDDEN)
    weights = draw(TOKENS, 2).softmax(-1)
    ids = torch.stack([torch.randperm(EXPERTS, generator=generator)[:2] for _ in range(TOKENS)])
    ids[4, 1] = -1  # padding
    expected = torch.zeros_like(x)
    for token in range(TOKENS):
        for place in range(2):
            expert = ids[token, place]
            if expert < 0:
                continue
            row = first[expert] @ x[token] + (first_bias[expert] if biased else 0)
            out = second[expert] @ activation(*parts(row, layout)) + (second_bias[expert] if biased else 0)
            expected[token] += weights[token, place] * out
    layer = SimpleNamespace(w13_weight=first.float(), w2_weight=second.float())
    if biased:
        layer.w13_weight_bias, layer.w2_weight_bias = first_bias.float(), second_bias.float()
    batch = SimpleNamespace(hidden_states=x.float(), topk_output=(weights.float(), ids, None))
    got = run_experts(SimpleNamespace(moe_runner_config=moe_config), layer, batch).hidden_states
    torch.testing.assert_close(got, expected.float(), atol=1e-5, rtol=1e-5)


def test_what_the_experts_cannot_do_is_refused():
    with pytest.raises(DFlashError, match="activation situ"):
        activation_of(config(activation="situ"))
    for field in ("no_combine", "apply_router_weight_on_input"):
        with pytest.raises(DFlashError, match="uncombined or pre-weighted"):
            run_experts(SimpleNamespace(moe_runner_config=config(**{field: True})), None, None)


@pytest.mark.parametrize("ranks", (1, 2))
def test_joint_norms_over_all_heads(ranks):
    q, k = torch.randn(5, 8), torch.randn(5, 4)
    q_weight, k_weight = torch.rand(8), torch.rand(4)
    sums = [joint_square_sums(q.chunk(ranks, 1)[rank], k.chunk(ranks, 1)[rank]) for rank in range(ranks)]
    pieces = [
        joint_norm(
            q.chunk(ranks, 1)[rank],
            k.chunk(ranks, 1)[rank],
            q_weight.chunk(ranks)[rank],
            k_weight.chunk(ranks)[rank],
            sum(sums),
            ranks,
            1e-6,
        )
        for rank in range(ranks)
    ]
    torch.testing.assert_close(torch.cat([p[0] for p in pieces], 1), F.rms_norm(q, (8,), q_weight, 1e-6))
    torch.testing.assert_close(torch.cat([p[1] for p in pieces], 1), F.rms_norm(k, (4,), k_weight, 1e-6))
