"""Threads and padding are measured when a model is loaded."""

import pytest
import torch
from torch import nn

from sglang_dflash.cpu import tuning
from sglang_dflash.kernels.dense.packed import PackedMatrix


class Clock:
    """Seconds that pass only where ``cost`` says so: called with the number of rows in every product."""

    def __init__(self, cost):
        self._cost, self._now = cost, 0.0

    def __call__(self):
        return self._now

    def matrix(self):
        clock = self

        class Timed(PackedMatrix):
            def project(self, x, bias=None):
                clock._now += clock._cost(self.padded_rows if x.shape[0] == 1 else x.shape[0])

        return Timed(nn.Linear(4, 2, bias=False))


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    """Threads are only noted."""
    current = [1]
    monkeypatch.setattr(torch, "set_num_threads", lambda n: current.__setitem__(0, n))
    monkeypatch.setattr(tuning, "_found", None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return current


def test_numbers_of_threads_that_are_tried():
    assert [tuning.candidates(n) for n in (1, 2, 3, 8)] == [[1], [1, 2], [1, 2, 3], [1, 4, 7, 8]]


@pytest.mark.parametrize(
    "speed, chosen",
    [({1: 1.0, 4: 3.0, 7: 5.0, 8: 2.0}, 7), ({1: 1.0, 4: 1.05, 7: 0.5, 8: 0.3}, 1)],
    ids=["shared", "not worth sharing"],
)
def test_the_fastest_number_of_threads(threads, speed, chosen):
    clock = Clock(lambda rows: 0.01 * rows / speed[threads[0]])
    assert tuning.fastest_threads([clock.matrix()], [1, 4, 7, 8], clock) == chosen


def test_measuring_ends():
    clock = Clock(lambda rows: 0.001)
    tuning.fastest_threads([clock.matrix()], [1, 2], clock)
    assert tuning.SECONDS <= clock() < tuning.SECONDS + 0.01


@pytest.mark.parametrize("slow", [True, False])
def test_padding_where_one_row_is_slow(slow):
    clock = Clock(lambda rows: 0.01 if rows == 1 and slow else 0.005 * rows)
    matrix = clock.matrix()
    clock._cost = lambda rows: {1: 0.01 if slow else 0.002}.get(rows, 0.004)
    assert tuning.padding_pays([matrix], clock) is slow
    assert matrix.padded_rows == 1


def test_the_environment_is_obeyed(threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    tuning.tune([], ranks=1)
    assert threads == [3]


def test_small_matrices_are_not_shared(threads, monkeypatch):
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 16)
    tuning.tune([], ranks=1)
    assert threads == [1]


def test_ranks_share_the_cores_and_the_draft_takes_the_targets_settings(threads, monkeypatch):
    seen = []
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 16)
    monkeypatch.setattr(tuning, "fastest_threads", lambda sample, numbers: seen.append(numbers) or numbers[-1])
    monkeypatch.setattr(tuning, "padding_pays", lambda sample: True)
    monkeypatch.setattr(tuning, "PADDED_ELEMENTS", 8)
    target, draft = PackedMatrix(nn.Linear(4, 2)), PackedMatrix(nn.Linear(4, 2))
    tuning.tune([target], ranks=4)
    tuning.tune([draft], ranks=4)
    assert seen == [[1, 2, 3, 4]] and threads == [4]
    assert target.padded_rows == draft.padded_rows == tuning.PADDED_ROWS
