"""What verify and commit leave behind equals a step-by-step run over the accepted tokens, snapshots included."""

import random
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "kernels"))
from linear_oracles import conv_case, delta_case, trees  # noqa: E402

from sglang_dflash.cpu.recurrent.states import scatter_after_verify  # noqa: E402
from sglang_dflash.host.recurrent_state import commit_states  # noqa: E402
from sglang_dflash.kernels.causal_conv.naive import conv_nodes, conv_step, node_rows  # noqa: E402
from sglang_dflash.kernels.gated_delta.naive import Gates, delta_nodes, delta_step, gates  # noqa: E402
from sglang_dflash.kernels.node_states import naive as node_states  # noqa: E402
from sglang_dflash.kernels.visibility.naive import visibility_from_parents  # noqa: E402
from sglang_dflash.types import empty_acceptance  # noqa: E402

BS, WIDTH, SLOTS, INTERVAL = 4, 8, 12, 4
close = dict(rtol=1e-4, atol=1e-5)


def random_path(parents: list[int], rng: random.Random) -> list[int]:
    """A path from the root to any node."""
    node = rng.choice([i for i, parent in enumerate(parents) if i == 0 or parent >= 0])
    path = []
    while node >= 0:
        path.insert(0, node)
        node = parents[node]
    return path


class Layer:
    """One gated-delta-net layer's inputs for every node, and its states."""

    def __init__(self, seed: int):
        self.x, self.weight, self.bias, conv = conv_case((BS, WIDTH), slots=SLOTS, seed=seed)
        *self.qkv, a, b, rate, bias, temporal = delta_case((BS, WIDTH), slots=SLOTS, seed=seed)
        self.gate = gates(a, b, rate, bias)
        windows = torch.full((1, BS, WIDTH, *conv.shape[1:]), torch.nan)
        nodes = torch.full((1, BS, WIDTH, *temporal.shape[1:]), torch.nan)
        self.caches = SimpleNamespace(
            conv=[conv[None]],
            temporal=temporal[None],
            intermediate_conv_window=[windows],
            intermediate_ssm=nodes,
        )

    def verify(self, parents, slots) -> None:
        caches = self.caches
        rows = node_rows(parents, BS, WIDTH, self.weight.shape[1])
        tree = torch.tensor([list(range(-1, WIDTH - 1))], dtype=torch.int32) if parents is None else parents
        conv_nodes(
            self.x,
            rows,
            caches.conv[0][0],
            slots,
            self.weight,
            self.bias,
            True,
            caches.intermediate_conv_window[0][0],
        )
        delta_nodes(
            *self.qkv,
            self.gate,
            parents,
            visibility_from_parents(tree),
            caches.temporal[0],
            slots,
            caches.intermediate_ssm[0],
        )

    def steps(self, row: int, path: list[int], slot: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(window, state) after each token of the path, one token at a time."""
        conv, temporal = self.caches.conv[0][0].clone(), self.caches.temporal[0].clone()
        at, after = torch.tensor([slot]), []
        for node in path:
            conv_step(self.x[row, node : node + 1], conv, at, self.weight, self.bias, True)
            gate = Gates(*(g[row, node : node + 1] for g in self.gate))
            delta_step(*(t[row, node : node + 1] for t in self.qkv), gate, temporal, at)
            after.append((conv[slot].clone(), temporal[slot].clone()))
        return after


@pytest.mark.parametrize("tree", (False, True))
@pytest.mark.parametrize("snapshots", (False, True))
@pytest.mark.parametrize("large", (False, True))
@pytest.mark.parametrize("seed", range(4))
def test_commit_equals_steps(monkeypatch, tree, snapshots, large, seed):
    from sglang.srt.speculative import spec_utils

    monkeypatch.setattr(node_states, "LARGE", 0 if large else 1 << 30)
    monkeypatch.setattr(spec_utils, "mambaish_config", lambda config: config)
    monkeypatch.setattr(spec_utils, "mamba_track_grid", lambda page: INTERVAL)
    rng, layer = random.Random(seed), Layer(seed)
    parents = trees(BS, WIDTH, seed) if tree else None
    slots, kept = torch.tensor([5, 0, 2, 9]), torch.tensor([1, 3, 4, 6])
    prefix = torch.tensor([rng.randrange(1, 30) for _ in range(BS)])
    all_parents = parents.tolist() if tree else [list(range(-1, WIDTH - 1))] * BS
    paths = [random_path(row, rng) for row in all_parents]
    wanted = [layer.steps(row, path, int(slots[row])) for row, path in enumerate(paths)]
    before = layer.caches.temporal.clone()

    layer.verify(parents, slots)
    accepted = empty_acceptance(BS, WIDTH, "cpu")
    accepted.path.fill_(-1)
    for row, path in enumerate(paths):
        accepted.path[row, : len(path)] = torch.tensor(path)
        accepted.commit_lens[row] = len(path)
    batch = SimpleNamespace(
        seq_lens=prefix,
        req_pool_indices=torch.arange(BS),
        mamba_track_indices=kept if snapshots else None,
        tree_cache=SimpleNamespace(page_size=1),
        forward_mode=SimpleNamespace(is_idle=lambda: False),
    )

    def update(last_correct_step_indices, mamba_track_indices, mamba_steps_to_track, **unused):
        nodes, steps = last_correct_step_indices, mamba_steps_to_track
        scatter_after_verify(layer.caches, slots, nodes, mamba_track_indices, steps)

    runner = SimpleNamespace(
        model_config="a hybrid",
        model=None,
        req_to_token_pool=SimpleNamespace(),
        attn_backend=SimpleNamespace(update_mamba_state_after_mtp_verify=update),
    )
    commit_states(SimpleNamespace(model_runner=runner), batch, accepted, WIDTH)
    for row, path in enumerate(paths):
        window, state = wanted[row][-1]
        torch.testing.assert_close(layer.caches.conv[0][0, slots[row]], window, **close)
        torch.testing.assert_close(layer.caches.temporal[0, slots[row]], state, **close)
        start, end = int(prefix[row]), int(prefix[row]) + len(path)
        crossed = end // INTERVAL * INTERVAL
        if snapshots and crossed > start:
            window, state = wanted[row][crossed - start - 1]
            torch.testing.assert_close(layer.caches.conv[0][0, kept[row]], window, **close)
            torch.testing.assert_close(layer.caches.temporal[0, kept[row]], state, **close)
        else:
            assert torch.equal(layer.caches.temporal[0, kept[row]], before[0, kept[row]])
