"""What the draft reads of the context, against rows written out by hand."""

from types import SimpleNamespace

import pytest
import torch
from cuda_form import CUDA, cuda_form
from rooms import runner

from sglang_dflash.engine.draft.view import WholeContext, WindowedContext

COLUMNS = 40
REQUESTS = 5


class Plan:
    """Remembers what it was asked to narrow to."""

    def reads_from(self, source, *, seq_lens, seq_lens_cpu, read_extent):
        return SimpleNamespace(source=source, seq_lens=seq_lens, seq_lens_cpu=seq_lens_cpu, read_extent=read_extent)


def expected_row(target_row: list[int], prefix: int, block: int, window: int, page: int) -> tuple[int, list[int]]:
    """Visible context length, and the slots of it and of the block, by the rule in words."""
    start = max(0, prefix - window)
    while start % page:
        start -= 1
    return prefix - start, target_row[start : prefix + block]


@pytest.mark.parametrize("page", [1, 4])
@pytest.mark.parametrize(("block", "window"), [(2, 2), (4, 4), (4, 7), (5, 16)])
def test_window_and_block_stand_at_the_front_of_the_drafts_own_row(page, block, window):
    target_rows = torch.randint(1, 10**6, (REQUESTS + 3, COLUMNS), dtype=torch.int32)
    widest = window + page - 1 + block
    own = torch.full((REQUESTS + 3, widest + 2), -1, dtype=torch.int32)
    view = WindowedContext(runner(rows=own), target_rows, block, window, page)
    # Empty context, both sides of the window's edge, an unaligned start, and the last columns of a row.
    prefixes = [0, window, window + 1, window + page + 2, COLUMNS - block]
    requests = torch.tensor([6, 0, 3, 1, 7])
    host_lens = torch.tensor(prefixes, dtype=torch.int32) + block
    reads = view.reads(Plan(), requests, torch.tensor(prefixes), None, host_lens)
    for i, prefix in enumerate(prefixes):
        row = requests[i].item()
        visible, slots = expected_row(target_rows[row].tolist(), prefix, block, window, page)
        assert reads.prefix_lens[i].item() == visible
        assert own[row, : visible + block].tolist() == slots
        assert reads.host_lens[i].item() >= visible + block
    assert reads.host_sum == int(reads.host_lens.sum())
    assert reads.host_lens.max().item() <= own.shape[1]
    untouched = [row for row in range(own.shape[0]) if row not in requests.tolist()]
    assert (own[untouched] == -1).all()


def test_the_plan_is_narrowed_to_the_window():
    target_rows = torch.arange(80, dtype=torch.int32).view(2, 40)
    own = torch.zeros(2, 12, dtype=torch.int32)
    view = WindowedContext(runner(rows=own), target_rows, 4, 8, 1)
    host_lens = torch.tensor([24, 9], dtype=torch.int32)
    reads = view.reads(Plan(), torch.tensor([1, 0]), torch.tensor([20, 5]), None, host_lens)
    assert reads.plan.source == "translator" and reads.plan.read_extent == 4
    assert reads.plan.seq_lens.tolist() == reads.prefix_lens.tolist() == [8, 5]
    assert reads.plan.seq_lens_cpu.tolist() == reads.host_lens.tolist() == [12, 9]
    assert own[1].tolist() == list(range(40 + 12, 40 + 24))
    assert own[0, :9].tolist() == list(range(9))
    # The caller's lengths are its own.
    assert host_lens.tolist() == [24, 9]


def test_past_the_end_of_a_row_nothing_is_read_beyond_the_table():
    target_rows = torch.arange(1, 21, dtype=torch.int32).view(1, 20)
    own = torch.zeros(1, 12, dtype=torch.int32)
    view = WindowedContext(runner(rows=own), target_rows, 4, 8, 1)
    reads = view.reads(Plan(), torch.tensor([0]), torch.tensor([16]), None, torch.tensor([20], dtype=torch.int32))
    assert own[0].tolist() == list(range(9, 21))
    # A short context near the end of the table: the columns behind the block are not the draft's.
    short = torch.arange(1, 8, dtype=torch.int32).view(1, 7)
    view = WindowedContext(runner(rows=own), short, 4, 8, 1)
    reads = view.reads(Plan(), torch.tensor([0]), torch.tensor([3]), None, torch.tensor([7], dtype=torch.int32))
    assert reads.prefix_lens.tolist() == [3]
    assert own[0].tolist() == [1, 2, 3, 4, 5, 6, 7, *range(16, 21)]


@pytest.mark.parametrize("page", [1, 4])
def test_a_window_wider_than_the_rows_is_the_whole_context(page):
    block, columns = 5, 64
    target_rows = torch.randint(1, 10**6, (3, columns), dtype=torch.int32)
    own = torch.full((3, columns), -1, dtype=torch.int32)
    view = WindowedContext(runner(rows=own), target_rows, block, 4096, page)
    prefixes, requests = [0, columns - block], torch.tensor([2, 0])
    host_lens = torch.tensor([block, columns + 3], dtype=torch.int32)
    reads = view.reads(Plan(), requests, torch.tensor(prefixes), None, host_lens)
    assert reads.prefix_lens.tolist() == prefixes
    for request, prefix in zip(requests.tolist(), prefixes, strict=True):
        assert own[request, : prefix + block].tolist() == target_rows[request, : prefix + block].tolist()
    assert reads.host_lens.tolist() == [block, columns]


def test_a_windows_kernel_is_compiled_at_start_and_touches_no_request():
    with cuda_form() as launches:
        rows = torch.empty(8, 8192, dtype=torch.int32, device=CUDA)
        WindowedContext(runner(rows=torch.empty_like(rows)), rows, 16, 4096, 16).warm_up()
    assert launches.names["_window_rows_kernel"] == 1
    own = torch.full((2, 12), -1, dtype=torch.int32)
    WindowedContext(runner(rows=own), torch.zeros(2, 40, dtype=torch.int32), 4, 8, 1).warm_up()
    assert (own[1] == -1).all()


def test_a_window_is_one_launch_on_a_gpu():
    with cuda_form() as launches:
        rows = torch.empty(8, 8192, dtype=torch.int32, device=CUDA)
        view = WindowedContext(runner(rows=torch.empty_like(rows)), rows, 16, 4096, 16)
        requests, prefix_lens = torch.empty(2, 3, dtype=torch.int64, device=CUDA)
        before = launches.total
        reads = view.reads(Plan(), requests, prefix_lens, None, torch.tensor([17, 5000, 4096], dtype=torch.int32))
    assert reads.prefix_lens.is_cuda and reads.host_lens.tolist() == [17, 4096 + 15 + 16, 4096]
    assert launches.total - before == launches.names["_window_rows_kernel"] == 1


def test_the_whole_context_passes_through():
    plan, prefix_lens, host_lens = Plan(), torch.tensor([3, 9]), torch.tensor([7, 13], dtype=torch.int32)
    reads = WholeContext().reads(plan, torch.tensor([0, 1]), prefix_lens, None, host_lens)
    assert reads.plan is plan and reads.prefix_lens is prefix_lens and reads.host_lens is host_lens
    assert reads.host_sum == 20
