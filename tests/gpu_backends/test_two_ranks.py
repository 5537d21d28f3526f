"""Two tensor-parallel ranks, over gloo: what a round brings together."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from sglang_dflash.tools.serve.ports import free_port, release_port

RANK = pathlib.Path(__file__).parent / "cases" / "two_ranks.py"
RANKS, NODES, DRAFTED = 2, 3 * 16, 3 * 15
# Launches outside of the two captured passes; SGLang's own preparation of both replays is most of them.
MOST = 41


def rounds() -> list[dict]:
    """What each rank saw."""
    environment = dict(os.environ, TRITON_INTERPRET="1", HF_HUB_OFFLINE="1")
    port = free_port()
    commands = [[sys.executable, str(RANK), str(rank), str(port)] for rank in range(RANKS)]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    processes = [subprocess.Popen(command, **pipes) for command in commands]
    found = []
    try:
        for process in processes:
            out, errors = process.communicate(timeout=600)
            assert process.returncode == 0, errors[-4000:]
            found.append(json.loads(out.splitlines()[-1]))
    finally:
        for process in processes:
            process.kill()
        release_port(port)
    return found


@pytest.fixture(scope="module")
def greedy() -> dict:
    """A greedy round of three requests, by worker; both ranks saw the same."""
    first, second = rounds()
    assert first["rounds"] == second["rounds"]
    return first["rounds"] | {"vocabulary": first["vocabulary"]}


def test_a_greedy_round_gathers_a_choice_per_row_and_no_logits(greedy):
    ours, builtin = greedy["ours"], greedy["builtin"]
    assert ours["kept"] == builtin["kept"]
    # A float32 and an int64 of every rank, for each node and each drafted token, in two gathers each.
    assert ours["gathers"] == 4
    assert ours["bytes"] == (NODES + DRAFTED) * RANKS * (4 + 8)
    # SGLang's own deferral is for logits that are capped, on CUDA; elsewhere whole rows of logits travel.
    assert builtin["bytes"] > NODES * greedy["vocabulary"] * 4


def test_in_cuda_form_it_waits_for_nothing_and_launches_no_more(greedy, capsys):
    ours, builtin = (greedy[name]["launches"] for name in ("ours", "builtin"))
    with capsys.disabled():
        print("\ngreedy round of three requests, two ranks: launches outside of the two graphs")
        for name in sorted(ours | builtin):
            print(f"{name:45}{ours.get(name, 0):6}{builtin.get(name, 0):6}")
        print(f"{'ours, built-in worker':45}{sum(ours.values()):6}{sum(builtin.values()):6}")
    assert greedy["ours"]["waits"] == []
    assert sum(ours.values()) <= MOST and sum(ours.values()) < sum(builtin.values())
