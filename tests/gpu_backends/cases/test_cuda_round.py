"""A round in its CUDA form waits for nothing, and launches no more than it did, nor than the built-in worker's."""

import backends
import pytest
import torch
from on_cuda import CudaRound

# Launches outside of the two captured passes; SGLang's own preparation of both replays is most of them.
MOST = {"greedy": 31, "sampled": 37}


@pytest.fixture(params=("greedy", "sampled"))
def case(request, launches, monkeypatch):
    """The launch whose workers were built for CUDA, on FlashAttention 3 in graphs; no exact lengths on the host."""
    launch = launches(cuda=True, sampled=request.param == "sampled")
    with launch.on(backends.CARDS["fa3"], monkeypatch, graph=True, host_lens=False):
        yield request.param, launch


def host_tensors(launch) -> list[torch.Tensor]:
    """What the scheduler and SGLang's graph runners keep on the host."""
    builtin = launch.world.workers["builtin"]
    builtin._ensure_draft_block_buffers(3)
    runners = launch.world.runners.values()
    buffers = [runner.decode_cuda_graph_runner.buffers.seq_lens_cpu for runner in runners]
    return [launch.batch.spec_info.nxt_kv_lens_cpu, launch.host_lens, builtin._draft_seq_lens_cpu_buf, *buffers]


def counted(launch, name: str) -> CudaRound:
    launch.round(name)  # kernels' first calls, buffers that are made once
    draft = launch.world.runners[name]
    with CudaRound(host_tensors(launch)) as seen:
        # One kernel each on a GPU, several operations on a CPU.
        seen.one_launch(draft.token_to_kv_pool, "set_kv_buffer_prefix_valid", "write of a layer's keys and values")
        seen.one_launch(draft.model.hidden_norm, "forward", "norm")
        seen.one_launch(launch.world.target.model_runner.sampler, "forward", "SGLang's sampler")
        launch.round(name)
    return seen


def test_a_round_waits_for_nothing_and_launches_no_more(case, capsys):
    kind, launch = case
    ours, builtin = (counted(launch, name) for name in ("ours", "builtin"))
    with capsys.disabled():
        print(f"\n{kind} round of three requests, one rank: launches outside of the two graphs")
        for name in sorted(ours.launches | builtin.launches):
            print(f"{name:40}{ours.launches.get(name, 0):6}{builtin.launches.get(name, 0):6}")
        print(f"{'ours, built-in worker':40}{ours.total:6}{builtin.total:6}")
    assert ours.waits == []
    assert ours.total <= MOST[kind]
    if kind == "greedy":
        assert ours.total < builtin.total and builtin.waits == []


def test_what_waits_is_seen():
    """A value, a list, a mask as an index, memory of the host: none passes unnoticed; the host's own may be read."""
    device, host = torch.arange(4.0), torch.arange(4.0)
    with CudaRound([host]) as seen:
        int((host + 1).sum()), host.tolist()
        assert seen.waits == [] and seen.total == 0
        device.sum().item()
        device.tolist()
        device[device > 1]
        device.copy_(host)
    assert {"item", "tolist", "index", "copy of the host's memory"} <= set(seen.waits)
