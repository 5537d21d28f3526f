"""Buffers, prefill positions, timing and counting of the worker."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from cuda_form import CUDA, cuda_form
from sglang.srt.managers import scheduler

from sglang_dflash.engine.buffers import RoundBuffers
from sglang_dflash.engine.counting import RoundCounter, counted
from sglang_dflash.engine.draft_state import DraftState
from sglang_dflash.engine.prefill import extend_positions
from sglang_dflash.engine.worker import DFlashWorker
from sglang_dflash.types import Shape

CPU = torch.device("cpu")


# --- buffers ---


def pointers(block, accepted) -> list[int]:
    return [tensor.data_ptr() for tensor in (*block, *accepted)]


def test_a_round_gets_views_of_its_size():
    buffers = RoundBuffers(Shape.tree(6, 3), block_size=4, device=CPU, capacity=8)
    block, accepted = buffers.next(5)
    assert [tuple(tensor.shape) for tensor in block] == [(20,), (20,), (30,)]
    assert accepted.path.shape == accepted.emitted.shape == (5, 3)
    for name in ("commit_lens", "bonus", "new_prefix_lens"):
        assert getattr(accepted, name).shape == (5,)
    assert accepted.commit_lens.dtype == torch.int32 and accepted.bonus.dtype == torch.int64
    assert all(tensor.is_contiguous() for tensor in (*block, *accepted))


def test_two_rounds_in_flight_do_not_share_memory_and_the_third_reuses():
    buffers = RoundBuffers(Shape.chain(4), 4, CPU, capacity=4)
    first, second, third = (pointers(*buffers.next(bs)) for bs in (4, 2, 3))
    assert not set(first) & set(second)
    assert first == third


def test_growing_leaves_the_views_in_flight_alone():
    buffers = RoundBuffers(Shape.chain(2), 2, CPU, capacity=2)
    _, accepted = buffers.next(2)
    accepted.emitted.fill_(7)
    block, grown = buffers.next(3)
    assert block.ids.numel() == 6 and grown.emitted.shape == (3, 2)
    grown.emitted.fill_(1)
    assert (accepted.emitted == 7).all()
    # It has doubled: a batch of four fits without growing again.
    before = pointers(block, grown)
    buffers.next(4)
    assert pointers(*buffers.next(4)) == before
    # One that is more than twice as large fits at once, too.
    assert buffers.next(100)[1].bonus.shape == (100,)


# --- prefill ---


@pytest.mark.parametrize(
    ("prefix_lens", "extend_lens"),
    [([0], [5]), ([3], [1]), ([0, 7, 2], [4, 1, 3]), ([5, 0, 9], [0, 2, 0]), ([1, 2], [0, 0]), ([], [])],
)
def test_positions_of_extended_tokens(prefix_lens, extend_lens):
    expected = [start + i for start, count in zip(prefix_lens, extend_lens, strict=True) for i in range(count)]
    positions = extend_positions(prefix_lens, extend_lens, CPU)
    assert positions.dtype == torch.int64 and positions.tolist() == expected


def test_positions_reach_a_gpu_from_pinned_memory():
    with cuda_form() as launches:
        positions = extend_positions([0, 7], [8192, 8192], CUDA)
    assert positions.is_cuda and positions.shape == (16384,)
    assert launches.names == {"_to_copy": 1} and launches.pageable == []


def test_state_between_rounds_holds_anchors_and_lengths():
    bonus, lens = torch.tensor([3, 4]), torch.tensor([10, 20])
    state = DraftState.after(bonus, lens)
    assert state.bonus_tokens is bonus and state.new_seq_lens is lens
    again = DraftState.after(bonus, lens)
    assert again.topk_p is state.topk_p and tuple(state.topk_p.shape) == (2, 0)


# --- counting ---


def counts_of(run, device_type: str = "cpu") -> tuple[dict, dict]:
    counter = RoundCounter(device_type)
    with counter:
        run()
    return {part: dict(row) for part, row in counter.counts.items()}, counter.operations


def test_a_known_sequence_of_operations_is_counted():
    a, out = torch.randn(4, 6), torch.empty(4, 6)

    def run():
        view = a.view(2, 12)[:, :3].unsqueeze(0).transpose(1, 2)  # views: nothing is computed
        b = a + 1  # launch, allocation
        b.mul_(2)  # launch
        torch.add(a, b, out=out)  # launch
        torch.empty(3)  # allocation
        c = view.clone()  # launch, allocation, copy
        out.copy_(a)  # launch, copy
        a.double()  # launch, allocation, copy
        b.split([2, 4], dim=1)  # views
        torch.cat([b, b])  # launch, allocation
        c.sum().item()  # launch, allocation; sync

    counts, operations = counts_of(run)
    assert counts == {"worker": {"launches": 8, "allocations": 6, "copies": 3, "syncs": 1}}
    assert operations["worker"] == {
        "add": 2,
        "mul_": 1,
        "clone": 1,
        "copy_": 1,
        "_to_copy": 1,
        "cat": 1,
        "sum": 1,
    }


@pytest.mark.parametrize(
    ("run", "syncs"),
    [
        (lambda a: a.nonzero(), 1),
        (lambda a: a[a > 0], 1),
        (lambda a: a.masked_select(a > 0), 1),
        (lambda a: a.__setitem__(a > 0, 0.0), 1),
        (lambda a: bool(a.any()), 1),
        (lambda a: torch.equal(a, a), 1),
        (lambda a: a[torch.tensor([0, 2])], 0),
        (lambda a: torch.where(a > 0, a, 0), 0),
        (lambda a: a.argmax(), 0),
    ],
)
def test_what_makes_the_host_wait_is_a_sync(run, syncs):
    counts, _ = counts_of(lambda: run(torch.randn(5)))
    assert counts["worker"]["syncs"] == syncs


def test_under_inference_mode_too_copies_are_told_from_views():
    @torch.inference_mode()
    def run():
        a = torch.zeros(4, 6)  # launch, allocation
        a.reshape(6, 4).contiguous().to(torch.float32)  # views, all three
        a.t().reshape(24)  # launch, allocation, copy
        a.to(torch.float64)  # launch, allocation, copy

    counts, _ = counts_of(run)
    assert counts["worker"] == {"launches": 3, "allocations": 3, "copies": 2, "syncs": 0}


def test_host_tensors_do_not_count_on_an_accelerator():
    counts, operations = counts_of(lambda: torch.ones(3) + 1, "cuda")
    assert (counts, operations) == ({}, {})


class Runner:
    device = "cpu"

    def forward(self, tensor):
        return tensor * 2 + 1


class Worker:
    """What SGLang's scheduler needs of a worker, counted around it."""

    def __init__(self, scale):
        self.target_worker = SimpleNamespace(model_runner=Runner())
        self.draft_worker = SimpleNamespace(model_runner=Runner())
        self.scale = scale

    def forward_batch_generation(self, batch, on_publish=None):
        drafted = self.draft_worker.model_runner.forward(batch.tokens)
        verified = self.target_worker.model_runner.forward(drafted * self.scale)
        return self.target_worker.model_runner.forward(verified).neg()


def test_decode_rounds_are_counted_by_part(tmp_path):
    path = tmp_path / "counts.jsonl"
    worker = counted(Worker, str(path))(scale=3)
    assert type(worker).__name__ == "Worker"

    def batch(decode: bool):
        mode = SimpleNamespace(is_decode=lambda: decode)
        return SimpleNamespace(forward_mode=mode, reqs=[1, 2], tokens=torch.ones(2))

    for decode in (False, True, True):
        assert torch.equal(worker.forward_batch_generation(batch(decode)), torch.full((2,), -39.0))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 2 and rows[0] == rows[1] and rows[0]["bs"] == 2
    launches = {part: row["launches"] for part, row in rows[0]["parts"].items()}
    assert launches == {"draft": 2, "worker": 2, "target": 4}
    assert rows[0]["operations"]["worker"] == {"mul": 1, "neg": 1}


# --- what SGLang asks a worker for ---


def test_the_worker_has_every_name_that_sglang_reads_of_it():
    """Nothing is handed on to the target's worker unseen: a name that is missing here would be another object's."""
    folder = Path(scheduler.__file__).parent
    source = "".join(path.read_text() for path in (*folder.glob("*.py"), *folder.glob("scheduler_components/*.py")))
    names = set(re.findall(r"self\.(?:draft_worker|model_worker)\.([a-z_]+)", source))
    others = {"get_confidence_budget_prepare"}  # asked of other algorithms' workers only
    missing = {name for name in names - others if not hasattr(DFlashWorker, name)}
    assert len(names) > 10 and missing == set()
    assert not hasattr(DFlashWorker, "__getattr__")
