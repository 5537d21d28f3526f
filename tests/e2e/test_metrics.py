"""Metrics of a real server are the sums of what its answers tell."""

import re
from collections import Counter
from pathlib import Path

import httpx
import pytest
from exact import Ask
from prometheus_client.parser import text_string_to_metric_families
from test_refusals import reply_to
from workload import questions

TREE = ("--speculative-eagle-topk", 3, "--speculative-num-draft-tokens", 24)
SERVERS = {"chain-16": ("--log-level", "debug"), "tree-24": TREE}
COUNTED = {
    "request_rounds_total": "spec_verify_ct",
    "correct_drafts_total": "spec_num_correct_drafts",
    "drafted_tokens_total": "spec_num_proposed_drafts",
}


def scrape(server) -> dict[tuple, float]:
    """(name, sorted labels but the model's) -> value, of our metrics."""
    text = httpx.get(f"{server.url}/metrics", trust_env=False, follow_redirects=True).text
    return {
        (
            sample.name.removeprefix("sglang_dflash:"),
            *sorted(v for k, v in sample.labels.items() if k != "model_name"),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("sglang_dflash:")
    }


@pytest.mark.parametrize("shape", SERVERS)
def test_counters_are_the_sums_of_what_answers_tell(servers, tokenizer, shape):
    server = servers.dflash("--enable-metrics", *SERVERS[shape], SGLANG_DFLASH_CPU_OVERLAP="on")
    before = scrape(server)
    asks = [ask._replace(ignore_eos=bool(i % 2)) for i, ask in enumerate(questions(tokenizer, 1))]
    params = [ask.sampling(stop=["\n"] if i % 3 == 0 else None) for i, ask in enumerate(asks)]
    answers = server.client.generate_many([ask.prompt for ask in asks], 6, params)
    assert reply_to(server, Ask((5, 10**6, 7), 4), {}, {}).status_code == 400
    after = scrape(server)
    seen = {key: value - before.get(key, 0.0) for key, value in after.items()}

    for name, told in COUNTED.items():
        assert seen[name,] == sum(answer.meta.get(told, 0) for answer in answers) > 0, name
    width = int(shape.partition("-")[2])
    assert seen["verified_tokens_total",] == width * seen["request_rounds_total",]
    histogram: Counter[int] = Counter()
    for answer in answers:
        histogram.update(dict(enumerate(answer.meta.get("spec_correct_drafts_histogram", ()))))
    assert seen["accept_length_count",] == histogram.total()
    assert seen["accept_length_bucket", "1.0"] == histogram[0]
    assert seen["accept_length_bucket", "4.0"] == sum(histogram[count] for count in range(4))
    for position in (1, 2, 5):
        reached = sum(number for count, number in histogram.items() if count >= position)
        assert seen.get(("correct_drafts_by_position_total", str(position)), 0) == reached
    rounds = seen["rounds_total", shape]
    assert 0 < rounds <= seen["request_rounds_total",]
    stages = {key[1]: value for key, value in seen.items() if key[0] == "stage_seconds_total"}
    assert set(stages) == {"prepare", "draft", "propose", "verify", "accept", "commit", "inject"}
    assert all(value > 0 for value in stages.values())
    lines = re.findall(
        r"round of \d+ requests, (\S+), correct drafts", Path(server.log_path).read_text(errors="replace")
    )
    assert set(lines) == ({shape} if "debug" in SERVERS[shape] else set())
    assert seen["refused_requests_total", "ids outside the vocabulary"] == 1


def test_without_the_flag_there_are_none(servers):
    assert httpx.get(f"{servers.dflash().url}/metrics", trust_env=False, follow_redirects=True).status_code == 404
