"""What goes wrong around a server: clients, requests, memory, signals. Afterwards it is empty, and answers plainly."""

import json
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path

import httpx
import psutil
import pytest
from exact import Ask, assert_same
from test_refusals import PATIENCE, ended, in_flight, load_of, tracebacks, until_empty
from workload import mixed_lengths, questions

SLOTS, ROOM = 8, 1600
FLAGS = ("--max-running-requests", SLOTS, "--max-total-tokens", ROOM)
OVERLAP = {"SGLANG_DFLASH_CPU_OVERLAP": "on"}
NUMBERS = (None, "x", -1, 1e308, -1e308, 2**70, float("nan"), [], {}, True)
WORDS = (None, "", "((", -1, 2**70, [], [[1]], {"a": 1}, True)
# Values that no field expects, by sampling field; greedy and four tokens long otherwise.
ABSURD = {
    **dict.fromkeys(("temperature", "top_p", "top_k", "min_p", "repetition_penalty"), NUMBERS),
    **dict.fromkeys(("frequency_penalty", "presence_penalty", "min_new_tokens", "sampling_seed"), NUMBERS),
    **dict.fromkeys(("max_new_tokens", "stream_interval"), NUMBERS),
    **dict.fromkeys(("stop", "stop_regex", "json_schema", "regex", "ebnf", "structural_tag"), WORDS),
    **dict.fromkeys(("ignore_eos", "skip_special_tokens", "no_stop_trim"), (None, "x", -1, 2**70, [])),
    "n": (None, 0, -1, "x", []),  # SGLang makes as many requests as it is told
    "stop_token_ids": (None, "x", -1, [-1], [2**40], ["x"], [None], {}),
    "logit_bias": (None, "x", {"-1": 1.0}, {"x": 1.0}, {"3": "x"}, {"3": None}, {"3": 1e308}, {str(2**70): 1.0}, []),
    "custom_params": (None, "x", -1, [], {"a": {"b": [1]}}),
    "beam_width": (None, "x", -1, 2**70, []),
    "watermark": (None, "x", -1, [], {"a": 1}),
    "no_such_field": (None, "x", 1),
}
# Bodies that are no request.
BODIES = (b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"input_ids": 3}', b'{"sampling_params": {}}')
BODIES += (b'{"input_ids": [1, "x"]}', b'{"input_ids": [[]]}', b'{"text": "a", "sampling_params": 3}', b"[" * 2000)


@pytest.fixture(scope="module")
def server(servers):
    return servers.dflash(*FLAGS, **OVERLAP)


@pytest.fixture(scope="module")
def asks(tokenizer) -> list[Ask]:
    return questions(tokenizer, 1)


@pytest.fixture(autouse=True)
def as_before(request, plain, asks):
    """After every test of the shared server: nothing runs, nothing is held, answers are exact."""
    yield
    if "server" in request.fixturenames:
        server = request.getfixturevalue("server")
        until_empty(server)
        answers = server.client.generate_many([ask.prompt for ask in asks[:6]], 6, [a.sampling() for a in asks[:6]])
        assert_same(plain, asks[:6], answers)
        assert tracebacks(server) == 0


def post(server, content: bytes) -> httpx.Response:
    headers = {"Content-Type": "application/json"}
    return httpx.post(f"{server.url}/generate", content=content, headers=headers, timeout=PATIENCE, trust_env=False)


def test_many_clients_of_few_slots(server, plain, tokenizer):
    asks = mixed_lengths(tokenizer, 64, 120, 40, seed=3)
    answers = server.client.generate_many([ask.prompt for ask in asks], 64, [ask.sampling() for ask in asks])
    assert_same(plain, asks, answers)


def test_clients_that_hang_up_beside_others_that_stay(server, plain, tokenizer):
    asks = [ask._replace(max_new_tokens=80) for ask in mixed_lengths(tokenizer, 24, 60, 2, seed=4)]

    def one(index: int):
        if index % 2:
            return server.client.generate(asks[index].prompt, asks[index].sampling())
        events = server.client.events(asks[index].prompt, asks[index].sampling())
        for _ in islice(events, index % 5):
            pass
        events.close()
        return None

    with ThreadPoolExecutor(len(asks)) as pool:
        answers = list(pool.map(one, range(len(asks))))
    assert_same(plain, asks[1::2], answers[1::2])


@pytest.mark.parametrize("body", BODIES, ids=[f"{body[:24]!r}" for body in BODIES])
def test_bodies_that_are_no_request(server, body):
    assert 400 <= post(server, body).status_code < 500


def test_absurd_values_are_answered_as_plainly(server, plain, asks):
    """With the same status, and the same tokens where they are served."""
    rows = [(name, value) for name, values in ABSURD.items() for value in values]

    def reply(client, row) -> tuple:
        sampling = {"temperature": 0.0, "top_k": 1, "max_new_tokens": 4, row[0]: row[1]}
        body = json.dumps({"input_ids": list(asks[0].prompt), "sampling_params": sampling}).encode()
        answer = post(client, body)
        parsed = answer.json() if answer.status_code == 200 else {}
        # Several answers, or none, where ``n`` is taken.
        parsed = parsed if isinstance(parsed, list) else [parsed]
        return answer.status_code, [one.get("output_ids") for one in parsed]

    with ThreadPoolExecutor(6) as pool:
        wanted = list(pool.map(lambda row: reply(plain.client, row), rows))
        given = list(pool.map(lambda row: reply(server, row), rows))
    differing = [(row, want, got) for row, want, got in zip(rows, wanted, given, strict=True) if want != got]
    assert not differing
    statuses = [status for status, _ in given]
    assert statuses.count(200) > 40 and sum(400 <= status < 500 for status in statuses) > 60


def test_requests_that_use_up_the_memory(server, plain, tokenizer):
    """Each fits; together they need the pool twice over."""
    asks = [Ask(ask.prompt[:60], 400) for ask in questions(tokenizer, 1)[:SLOTS]]
    answers = server.client.generate_many([ask.prompt for ask in asks], SLOTS, [ask.sampling() for ask in asks])
    assert_same(plain, asks, answers)
    too_long = post(server, json.dumps({"input_ids": [5] * (ROOM + 40)}).encode())
    assert too_long.status_code == 400 and "token" in too_long.json()["error"]["message"]


def test_a_draft_that_is_gone_is_one_line(servers, tmp_path):
    status, log = ended(servers, tmp_path / "gone", tmp_path)
    assert status != 0 and "Load weight begin" not in log and "Traceback" not in log
    errors = [line for line in log.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "gone" in errors[0] and errors[0].startswith("error: sglang-dflash: ")


@pytest.mark.parametrize("which", ["the launcher ends", "a scheduler is killed"])
def test_signals_in_flight_end_the_server(servers, plain, tokenizer, which):
    """SIGTERM lets answers finish, as plainly; after a SIGKILL of the scheduler nothing is left that waits."""
    server = servers.dflash("--max-running-requests", 7, **OVERLAP)
    asks = [Ask(ask.prompt[:60], 300) for ask in questions(tokenizer, 1)[:4]]
    processes = server.processes()
    said = re.search(r"runs on sglang_dflash\.engine\.DFlashWorker \(pid (\d+)\)", Path(server.log_path).read_text())
    (scheduler,) = [process for process in processes if process.pid == int(said[1])]
    with ThreadPoolExecutor(len(asks)) as pool:
        jobs = in_flight(server, asks, pool)
        assert load_of(server) is not None
        if which == "the launcher ends":
            psutil.Process(server.pid).send_signal(signal.SIGTERM)
            assert_same(plain, asks, [job.result() for job in jobs])
        else:
            scheduler.kill()
            for job in jobs:
                with suppress(Exception):
                    job.result()
        _, left = psutil.wait_procs([p for p in processes if p.pid != server.pid], timeout=PATIENCE)
    assert [p for p in left if p.status() != psutil.STATUS_ZOMBIE] == []
    assert not server.alive()
    log = Path(server.log_path).read_text(errors="replace")
    assert which == "a scheduler is killed" or "Traceback" not in log
    servers.stop(server)
