"""Requests refused, aborted or abandoned leave the server up, exact and empty; bad drafts end the launch."""

import json
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import torch
from exact import Ask, assert_same
from safetensors.torch import load_file, save_file
from workload import mixed_lengths, questions

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.serve.ports import free_port

HELD = ("num_running_reqs", "num_waiting_reqs", "num_used_tokens")
PATIENCE = 60  # seconds until a server has let go of what nobody waits for

# sampling parameters, other fields of the request, words of the reason
REFUSED = {
    "beam search": ({"beam_width": 4}, {}, "Beam search is not supported"),
}
# What plain decoding refuses as well.
MALFORMED = {
    "temperature": {"temperature": -1.0},
    "top_p": {"top_p": 0.0},
    "top_k": {"top_k": -3, "temperature": 1.0},
    "frequency penalty": {"frequency_penalty": 2.5},
    "repetition penalty": {"repetition_penalty": 0.0},
    "minimum length": {"min_new_tokens": 10**6},
    "min_p": {"min_p": 2.0},
}


@pytest.fixture(scope="module")
def server(servers):
    return servers.dflash()


@pytest.fixture(scope="module")
def asks(tokenizer):
    return questions(tokenizer, 1)[:8]


@pytest.fixture(scope="module")
def context(pair) -> int:
    return json.loads((Path(pair.target) / "config.json").read_text())["max_position_embeddings"]


@pytest.fixture(scope="module")
def long_asks(tokenizer, context):
    """Answers that take many rounds, whatever the draft guesses."""
    return [
        Ask(ask.prompt[:60], min(900, context - 100)) for ask in mixed_lengths(tokenizer, 6, context // 4, 1, seed=11)
    ]


@pytest.fixture(autouse=True)
def still_serving(server, plain, asks):
    """After every test: nothing runs, nothing is held, and answers are exact."""
    yield
    until_empty(server)
    answers = server.client.generate_many([a.prompt for a in asks], 4, [a.sampling() for a in asks])
    assert_same(plain, asks, answers)


def until_empty(server) -> None:
    """Wait until nothing runs; then only the radix cache holds slots, and it can be emptied."""
    server.client.flush_cache(timeout=PATIENCE)
    deadline = time.monotonic() + PATIENCE
    # The load is published now and then.
    while any((load := load_of(server))[name] for name in HELD):
        assert time.monotonic() < deadline, load
        time.sleep(0.2)
    server.raise_if_dead()


def load_of(server) -> dict:
    return httpx.get(f"{server.url}/v1/loads", trust_env=False).json()["loads"][0]


def reply_to(server, ask: Ask, sampling: dict, fields: dict) -> httpx.Response:
    body = {"input_ids": list(ask.prompt), "sampling_params": ask.sampling(**sampling), **fields}
    return httpx.post(f"{server.url}/generate", json=body, timeout=PATIENCE, trust_env=False)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_exact_yet_is_refused_with_the_reason(server, asks, name):
    sampling, fields, words = REFUSED[name]
    reply = reply_to(server, asks[0], sampling, fields)
    assert reply.status_code == 400
    reason = reply.json()["error"]["message"]
    assert words in reason and "\n" not in reason
    with pytest.raises(DFlashError, match=words):
        server.client.generate(asks[0].prompt, asks[0].sampling(**sampling), stream=True, **fields)


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_requests_are_refused(server, asks, name):
    assert reply_to(server, asks[0], MALFORMED[name], {}).status_code == 400


def test_prompts_that_do_not_fit_are_refused(server, asks, context):
    too_long = Ask(asks[0].prompt * (context // len(asks[0].prompt) + 1), 4)
    assert reply_to(server, too_long, {}, {}).status_code == 400
    # SGLang does not look: it would read past the embedding, which on a host ends the scheduler.
    for outside in (10**6, -1):
        reply = reply_to(server, Ask((5, outside, 7), 4), {}, {})
        assert reply.status_code == 400 and "outside the vocabulary" in reply.json()["error"]["message"]


def test_refusals_do_not_touch_the_requests_beside_them(server, plain, asks):
    def bad(name):
        sampling, fields, _ = REFUSED[name]
        return reply_to(server, asks[0], sampling, fields).status_code

    with ThreadPoolExecutor(4) as pool:
        refused = [pool.submit(bad, name) for name in REFUSED]
        answers = server.client.generate_many([a.prompt for a in asks], 4, [a.sampling() for a in asks])
        assert {job.result() for job in refused} == {400}
    assert_same(plain, asks, answers)


def in_flight(server, asks, pool):
    """Start ``asks`` as rids ``job-<i>`` and wait until each has given its first tokens."""
    started = [threading.Event() for _ in asks]
    jobs = [
        pool.submit(
            server.client.generate,
            ask.prompt,
            ask.sampling(),
            on_text=lambda _, event=event: event.set(),
            rid=f"job-{i}",
        )
        for i, (ask, event) in enumerate(zip(asks, started, strict=True))
    ]
    assert all(event.wait(PATIENCE) for event in started)
    return jobs


def abort(server, **fields) -> None:
    httpx.post(f"{server.url}/abort_request", json=fields, trust_env=False).raise_for_status()


def assert_prefixes(plain, asks, answers) -> None:
    """What an aborted request had given by then is right."""
    given = [(ask._replace(max_new_tokens=len(a.token_ids)), a) for ask, a in zip(asks, answers, strict=True)]
    given = [pair for pair in given if pair[1].token_ids]
    assert_same(plain, [ask for ask, _ in given], [answer for _, answer in given])


def test_aborting_one_request_leaves_the_others(server, plain, long_asks):
    with ThreadPoolExecutor(len(long_asks)) as pool:
        jobs = in_flight(server, long_asks, pool)
        abort(server, rid="job-2")
        answers = [job.result() for job in jobs]
    aborted = answers.pop(2)
    assert aborted.finish_reason == "abort" and len(aborted.token_ids) < long_asks[2].max_new_tokens
    assert_prefixes(plain, [long_asks[2]], [aborted])
    assert {answer.finish_reason for answer in answers} == {"length"}
    assert_same(plain, long_asks[:2] + long_asks[3:], answers)


def test_aborting_every_request(server, plain, long_asks):
    with ThreadPoolExecutor(len(long_asks)) as pool:
        jobs = in_flight(server, long_asks, pool)
        abort(server, abort_all=True)
        answers = [job.result() for job in jobs]
    assert "abort" in {answer.finish_reason for answer in answers}
    assert_prefixes(plain, long_asks, answers)


def test_clients_that_leave_are_let_go(server, long_asks):
    """Some after the first piece of a stream, some while they wait for the whole answer."""
    before = tracebacks(server)
    for ask in long_asks[:3]:
        body = {"input_ids": list(ask.prompt), "sampling_params": ask.sampling(), "stream": True}
        with httpx.stream("POST", f"{server.url}/generate", json=body, trust_env=False) as reply:
            assert reply.status_code == 200
            next(reply.iter_lines())
    for ask in long_asks[3:]:
        body = {"input_ids": list(ask.prompt), "sampling_params": ask.sampling()}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/generate", json=body, timeout=0.15, trust_env=False)
    until_empty(server)
    assert tracebacks(server) == before


def tracebacks(server) -> int:
    """Those of the scheduler: SGLang's HTTP layer may write its own about a client that left."""
    return Path(server.log_path).read_text(errors="replace").count("Scheduler hit an exception")


def ended(servers, draft: Path, tmp_path: Path) -> tuple[int, str]:
    """Exit status and log of a launch with ``draft``."""
    spec = replace(servers.spec("dflash"), draft=str(draft))
    log = tmp_path / "launch.log"
    with log.open("wb") as out:
        process = subprocess.run(
            spec.command(free_port()),
            env=spec.environment(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            timeout=420,
        )
    return process.returncode, log.read_text(errors="replace")


def test_a_draft_with_a_foreign_tensor_ends_the_launch_before_weights_load(servers, pair, tmp_path):
    draft = tmp_path / "draft"
    shutil.copytree(pair.draft, draft)
    weights = load_file(draft / "model.safetensors") | {"selector.weight": torch.zeros(3)}
    save_file(weights, draft / "model.safetensors")
    status, log = ended(servers, draft, tmp_path)
    assert status != 0 and "Load weight begin" not in log and "Traceback" not in log
    errors = [line for line in log.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: sglang-dflash: draft tensor selector.weight: is not part of")


def test_a_draft_in_an_older_format_is_loaded_as_strictly(servers, pair, tmp_path):
    """Its tensors are known only once they are read, after the target's."""
    draft = tmp_path / "draft"
    draft.mkdir()
    shutil.copy(Path(pair.draft) / "config.json", draft)
    weights = load_file(Path(pair.draft) / "model.safetensors")
    del weights["norm.weight"]
    torch.save(weights, draft / "pytorch_model.bin")
    status, log = ended(servers, draft, tmp_path)
    assert status != 0
    errors = [line for line in log.splitlines() if line.startswith("error: ")]
    assert errors == ["error: sglang-dflash: draft checkpoint: lacks norm.weight (use the complete checkpoint)"]
