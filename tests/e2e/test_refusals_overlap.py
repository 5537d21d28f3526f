"""A refused request beside sampled ones under overlap scheduling, where it is in one decode round before it ends."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from exact import assert_same
from test_refusals import REFUSED, reply_to, until_empty
from workload import questions

SAMPLED = {"temperature": 1.0, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "ignore_eos": True, "max_new_tokens": 200}


@pytest.fixture(scope="module")
def server(servers):
    return servers.dflash(SGLANG_DFLASH_CPU_OVERLAP="on")


def test_sampled_requests_beside_refused_ones(server, plain, tokenizer):
    asks = questions(tokenizer, 1)[:8]

    def refuse(name) -> None:
        sampling, fields, words = REFUSED[name]
        for greedy in (True, False):
            more = sampling if greedy else SAMPLED | sampling
            reply = reply_to(server, asks[0], more, fields)
            assert reply.status_code == 400 and words in reply.json()["error"]["message"], name

    with ThreadPoolExecutor(8) as pool:
        sampled = [pool.submit(server.client.generate, ask.prompt, SAMPLED) for ask in asks[:4] * 2]
        refused = [pool.submit(refuse, name) for name in REFUSED]
        for job in refused:
            job.result()
        assert {len(job.result().token_ids) for job in sampled} == {SAMPLED["max_new_tokens"]}
    until_empty(server)
    answers = server.client.generate_many([a.prompt for a in asks], 4, [a.sampling() for a in asks])
    assert_same(plain, asks, answers)
