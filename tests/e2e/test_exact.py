"""Greedy DFLASH equals plain decoding, token for token, in every configuration a server can have.

Each class of requests runs on one shared server per configuration; plain answers are computed once.
"""

import json
import random
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from exact import Ask, assert_same
from workload import mixed_lengths, questions, shared_prefixes


def _widths(verify: int, block: int) -> tuple:
    return "--speculative-num-draft-tokens", verify, "--speculative-dflash-block-size", block


OVERLAP = {"SGLANG_DFLASH_CPU_OVERLAP": "on"}  # an accelerator overlaps unless told otherwise
WINDOWED = ("--speculative-draft-window-size", 32, "--speculative-num-draft-tokens", 5)
CONFIGURATIONS = {
    "default": ((), {}),
    "overlap-pages-chunks-narrow": (("--page-size", 16, "--chunked-prefill-size", 64, *_widths(6, 16)), OVERLAP),
    "overlap-window-block5-mixed": (
        (*WINDOWED, "--chunked-prefill-size", 96, "--enable-mixed-chunk"),
        OVERLAP,
    ),
    "window-pages-sync": (
        ("--speculative-draft-window-size", 48, "--page-size", 4, "--disable-overlap-schedule"),
        {},
    ),
    "block2": (("--speculative-num-draft-tokens", 2), {}),
    "overlap-nothing-drafted": (_widths(1, 16), OVERLAP),
    "overlap-two-ranks-window-block11": (
        ("--tp-size", 2, "--speculative-num-draft-tokens", 11, "--speculative-draft-window-size", 40),
        OVERLAP,
    ),
}


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def server(request, servers):
    flags, env = CONFIGURATIONS[request.param]
    return servers.dflash(*flags, **env)


def test_questions_of_every_kind(server, plain, tokenizer):
    asks = questions(tokenizer, 3)
    answers = server.client.generate_many([a.prompt for a in asks], 16, [a.sampling() for a in asks])
    assert_same(plain, asks, answers)


def test_lengths_from_1_to_2000(server, plain, pair, tokenizer):
    context = json.loads((Path(pair.target) / "config.json").read_text())["max_position_embeddings"]
    longest = min(2000, context - 200)
    asks = mixed_lengths(tokenizer, 24, longest, 150, seed=1)
    asks += [Ask(asks[0].prompt[:1], 1), Ask(asks[1].prompt[:2], 2), Ask(asks[2].prompt[:40], longest)]
    answers = server.client.generate_many([a.prompt for a in asks], 9, [a.sampling() for a in asks])
    assert_same(plain, asks, answers)


def test_shared_prefixes_come_from_the_cache(server, plain, tokenizer):
    asks = shared_prefixes(tokenizer, groups=4, each=4, prefix_len=70, seed=2)
    answers = server.client.generate_many([a.prompt for a in asks], 3, [a.sampling() for a in asks])
    assert_same(plain, asks, answers)
    assert sum(a.cached_tokens >= 64 for a in answers) >= 8
    # A prefix hit must bring the draft's context: acceptance is that of the first visit.
    again = server.client.generate_many([a.prompt for a in asks], 3, [a.sampling() for a in asks])
    assert_same(plain, asks, again)
    assert sum(a.rounds for a in again) <= 1.1 * sum(a.rounds for a in answers)


def test_requests_join_and_leave_while_others_decode(server, plain, tokenizer):
    rng = random.Random(3)
    asks = [a._replace(max_new_tokens=rng.choice((1, 2, 7, 30, 90)), ignore_eos=True) for a in questions(tokenizer, 2)]
    answers = server.client.generate_many([a.prompt for a in asks], 32, [a.sampling() for a in asks])
    assert_same(plain, asks, answers)
    asks = asks[::-1]
    answers = server.client.generate_many([a.prompt for a in asks], 5, [a.sampling() for a in asks])
    assert_same(plain, asks, answers)


def test_all_slots_are_free_afterwards(server):
    # SGLang's own invariant checker runs whenever a scheduler is idle and ends the server at a leak.
    server.client.flush_cache()
    time.sleep(1)
    load = httpx.get(f"{server.url}/v1/loads", trust_env=False).json()["loads"][0]
    assert (load["num_used_tokens"], load["num_running_reqs"], load["num_waiting_reqs"]) == (0, 0, 0)
    assert server.client.ready()


def test_retraction_under_kv_pressure(servers, plain, tokenizer):
    """Twelve answers that do not fit together, and running requests evicted and prefilled again, often.

    SGLang admits by what it knows of the answers' lengths; its own switch makes it retract besides.
    """
    evict = {"SGLANG_TEST_RETRACT": "1", "SGLANG_TEST_RETRACT_INTERVAL": "9"}
    server = servers.dflash("--max-total-tokens", 1500, **OVERLAP, **evict)
    asks = [Ask(ask.prompt[:40], 160) for ask in questions(tokenizer, 1)[:12]]
    answers = server.client.generate_many([a.prompt for a in asks], 12, [a.sampling() for a in asks])
    assert_same(plain, asks, answers)
    assert sum(a.meta["num_retractions"] for a in answers) > 0


def test_a_window_longer_than_the_context(servers, plain, tokenizer):
    server = servers.dflash("--context-length", 256, "--speculative-draft-window-size", 512, "--page-size", 4)
    prompts = [ask.prompt[:150] for ask in questions(tokenizer, 1)]
    asks = [Ask(prompts[0][:1], 250), Ask(prompts[1], 256 - len(prompts[1]) - 6), *(Ask(p, 90) for p in prompts[2:8])]
    answers = server.client.generate_many([a.prompt for a in asks], 4, [a.sampling() for a in asks])
    assert_same(plain, asks, answers)


def test_sliding_draft_layers_by_config(servers, pair, plain, tokenizer, tmp_path_factory):
    """A draft whose config makes one layer slide (causally) and one see all: weaker drafts, same answers."""
    folder = tmp_path_factory.mktemp("sliding-draft")
    config = json.loads((Path(pair.draft) / "config.json").read_text())
    layers = config["num_hidden_layers"]
    config |= {
        "layer_types": ["sliding_attention"] * (layers - 1) + ["full_attention"],
        "sliding_window": 24,
        "use_sliding_window": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").symlink_to(Path(pair.draft).resolve() / "model.safetensors")
    spec = replace(servers.spec("dflash", "--page-size", 8), draft=str(folder))
    asks = questions(tokenizer, 1) + mixed_lengths(tokenizer, 6, 300, 80, seed=5)
    answers = servers.get(spec).client.generate_many([a.prompt for a in asks], 6, [a.sampling() for a in asks])
    assert_same(plain, asks, answers)


def test_builtin_worker_takes_over_when_told(servers, plain, tokenizer):
    server = servers.builtin()
    asks = questions(tokenizer, 1)
    answers = server.client.generate_many([a.prompt for a in asks], 4, [a.sampling() for a in asks])
    assert_same(plain, asks, answers)
    log = Path(server.log_path).read_text(errors="replace")
    assert "DFLASH runs on SGLang's built-in worker: SGLANG_DFLASH_WORKER=builtin" in log


def test_log_names_the_worker_and_both_versions_once(servers):
    log = Path(servers.dflash().log_path).read_text(errors="replace")
    lines = [line for line in log.splitlines() if "DFLASH runs on" in line]
    assert len(lines) == 1
    assert "sglang-dflash 0." in lines[0] and "SGLang 0.5.23" in lines[0] and "DFlashWorker" in lines[0]
