"""A Mamba-2 layer's verify and commit against decoding the same path step by step; prompts in chunks against whole."""

import random
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sglang_dflash.cpu.host.recurrent import LayerStates
from sglang_dflash.cpu.recurrent.mamba2 import Mamba2Attention
from sglang_dflash.cpu.recurrent.plan import Prompts, plan_nodes, plan_prompts
from sglang_dflash.cpu.recurrent.states import scatter_after_verify
from sglang_dflash.kernels.chunks.plan import plan_chunks
from sglang_dflash.kernels.visibility.naive import visibility_from_parents

sys.path.append(str(Path(__file__).parents[1] / "kernels"))
from kernel_inputs import random_parents  # noqa: E402

HIDDEN, HEADS, SIZE, N, GROUPS, TAPS, SLOTS = 12, 6, 4, 5, 3, 4, 8
INNER, CHANNELS = HEADS * SIZE, HEADS * SIZE + 2 * GROUPS * N
close = dict(rtol=1e-4, atol=1e-5)


class SpeculativeState(SimpleNamespace):
    pass


def pool(width: int, requests: int):
    """A state pool of one layer with random states."""
    caches = SpeculativeState(
        conv=[torch.randn(1, SLOTS, CHANNELS, TAPS - 1)],
        temporal=torch.randn(1, SLOTS, HEADS, SIZE, N),
        intermediate_conv_window=[torch.zeros(1, requests, width, CHANNELS, TAPS - 1)],
        intermediate_ssm=torch.zeros(1, requests, width, HEADS, SIZE, N),
    )
    inner = SimpleNamespace(mamba_cache=caches, SpeculativeState=SpeculativeState)
    return SimpleNamespace(mamba_pool=inner, mamba2_layer_index=lambda layer_id: 0)


def mixer():
    """What the backend reads of SGLang's mixer, with random parameters."""
    torch.manual_seed(7)
    into = torch.randn(INNER + CHANNELS + HEADS, HIDDEN) / HIDDEN**0.5
    out = torch.randn(HIDDEN, INNER) / INNER**0.5
    return SimpleNamespace(
        tp_size=1,
        intermediate_size=INNER,
        conv_dim=CHANNELS,
        num_heads=HEADS,
        head_dim=SIZE,
        ssm_state_size=N,
        groups_ssm_state_size=GROUPS * N,
        activation="silu",
        conv1d=SimpleNamespace(weight=torch.randn(CHANNELS, 1, TAPS), bias=torch.randn(CHANNELS)),
        A=-torch.rand(HEADS).exp(),
        D=torch.randn(HEADS),
        dt_bias=torch.randn(HEADS),
        in_proj=lambda x: (x @ into.T, None),
        norm=lambda x, gate: x * torch.sigmoid(gate),
        out_proj=lambda x: (x @ out.T, None),
    )


def layer(states, slots, plan) -> Mamba2Attention:
    """The backend between two passes: its plan is made, its forward is to come."""
    backend = Mamba2Attention.__new__(Mamba2Attention)
    backend.req_to_token_pool, backend._layers = states, {}
    backend._slots, backend._plan = torch.tensor(slots), plan
    return backend


NO_TRACKING = SimpleNamespace(mamba_track_mask=None)


def decode(states, slot: int, hidden: torch.Tensor) -> torch.Tensor:
    """hidden [n, hidden], one step each -> [n, hidden]."""
    backend = layer(states, [slot], None)
    return torch.cat([backend.forward(mixer(), row[None], None, 0, NO_TRACKING) for row in hidden])


@pytest.mark.parametrize("tree", (False, True))
def test_every_node_is_a_state_to_go_on_from(tree):
    bs, width, slots = 2, 7, [5, 2]
    torch.manual_seed(1)
    states, hidden = pool(width, bs), torch.randn(bs, width, HIDDEN)
    rng = random.Random(4)
    parents = [random_parents(width, rng, padded=False) if tree else list(range(-1, width - 1)) for _ in slots]
    spec = SimpleNamespace(draft_token_num=width)
    if tree:
        spec.parents = torch.tensor(parents, dtype=torch.int32)
        spec.visibility = visibility_from_parents(spec.parents)
    batch = SimpleNamespace(spec_info=spec, batch_size=bs)
    before = {name: value.clone() for name, value in vars(LayerStates(states, 0)).items()}
    verify = layer(states, slots, plan_nodes(batch, TAPS))
    out = verify.forward(mixer(), hidden.view(-1, HIDDEN), None, 0, batch).view(bs, width, HIDDEN)
    caches = states.mamba_pool.mamba_cache
    assert torch.equal(caches.temporal[0], before["temporal"]) and torch.equal(caches.conv[0][0], before["conv"])
    for node in range(width):
        torch.manual_seed(2)
        steps = pool(width, bs)
        for row, slot in enumerate(slots):
            path = [node]
            while parents[row][path[0]] >= 0:
                path.insert(0, parents[row][path[0]])
            steps.mamba_pool.mamba_cache.temporal[0, slot] = before["temporal"][slot]
            steps.mamba_pool.mamba_cache.conv[0][0, slot] = before["conv"][slot]
            wanted = decode(steps, slot, hidden[row, path])
            torch.testing.assert_close(out[row, node], wanted[-1], **close)
        scatter_after_verify(caches, torch.tensor(slots), torch.tensor([node] * bs), None, None)
        for mine, theirs in (
            (caches.temporal, steps.mamba_pool.mamba_cache.temporal),
            (caches.conv[0], steps.mamba_pool.mamba_cache.conv[0]),
        ):
            torch.testing.assert_close(mine[0, slots], theirs[0, slots], **close)


def test_a_prompt_in_chunks_and_kept_states():
    """Two requests, the second continued from its state; states kept inside of one and at the end of the other."""
    torch.manual_seed(3)
    lens, slots, chunk = (21, 6), [1, 4], 8
    states, hidden = pool(1, 2), torch.randn(sum(lens), HIDDEN)
    steps = pool(1, 2)
    for mine, theirs in (
        (states.mamba_pool.mamba_cache.temporal, steps.mamba_pool.mamba_cache.temporal),
        (states.mamba_pool.mamba_cache.conv[0], steps.mamba_pool.mamba_cache.conv[0]),
    ):
        theirs.copy_(mine)
    batch = SimpleNamespace(
        extend_seq_lens_cpu=list(lens),
        mamba_track_indices=torch.tensor([6, 7]),
        mamba_track_mask=torch.tensor([True, True]),
    )
    # The first request's snapshot is after 16 of its tokens, the second's where it ends.
    metadata = SimpleNamespace(
        mamba_cache_indices=torch.tensor(slots),
        has_mamba_track_mask=True,
        mamba_track_mask_indices=None,
        track_chunk_idx=torch.tensor([2, -1]),
        track_ssm_h_batch_src=torch.tensor([0]),
        track_conv_indices=torch.tensor([[13, 14, 15], [24, 25, 26]]),
        track_ssm_final_src=torch.tensor([4]),
        track_ssm_final_dst=torch.tensor([7]),
    )
    plan = plan_prompts(batch, metadata, chunk)
    assert isinstance(plan, Prompts) and plan.chunks.turns == plan_chunks([0, 21, 27], "cpu", (), chunk).turns
    out = layer(states, slots, plan).forward(mixer(), hidden, None, 0, batch)
    mine, theirs = (LayerStates(p, 0) for p in (states, steps))
    torch.testing.assert_close(out[:16], decode(steps, 1, hidden[:16]), **close)
    torch.testing.assert_close(mine.temporal[6], theirs.temporal[1], **close)
    projected = mixer().in_proj(hidden)[0][:, INNER : INNER + CHANNELS]
    torch.testing.assert_close(mine.conv[6], projected[13:16].T, **close)
    torch.testing.assert_close(out[16:21], decode(steps, 1, hidden[16:21]), **close)
    torch.testing.assert_close(out[21:], decode(steps, 4, hidden[21:]), **close)
    for kept, slot in ((1, 1), (4, 4), (7, 4)):
        torch.testing.assert_close(mine.temporal[kept], theirs.temporal[slot], **close)
        torch.testing.assert_close(mine.conv[kept], theirs.conv[slot], **close)
