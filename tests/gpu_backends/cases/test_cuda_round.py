"""A round in its CUDA form waits for nothing, and launches no more than it did, nor than the built-in worker's."""

import backends
import pytest
import torch
from counts import counted, table
from on_cuda import CudaRound

# Launches outside of the two captured passes; SGLang's own preparation of both replays is most of them.
MOST = {"greedy": 31, "sampled": 37}


@pytest.fixture(params=("greedy", "sampled"))
def case(request, launches, monkeypatch):
    """The launch whose workers were built for CUDA, on FlashAttention 3 in graphs; no exact lengths on the host."""
    launch = launches(cuda=True, sampled=request.param == "sampled")
    with launch.on(backends.CARDS["fa3"], monkeypatch, graph=True, host_lens=False):
        yield request.param, launch


def test_a_round_waits_for_nothing_and_launches_no_more(case, capsys):
    kind, launch = case
    ours, builtin = (counted(launch, name) for name in ("ours", "builtin"))
    with capsys.disabled():
        print(f"\n{kind} round of three requests, one rank: launches outside of the two graphs")
        print(table(ours.launches, builtin.launches))
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
