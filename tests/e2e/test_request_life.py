"""A request's life: priorities and preemption, chunks beside decoding, sessions, prompts as embeddings. All exact."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from exact import Ask, assert_same
from safetensors.torch import load_file
from workload import mixed_lengths, questions

OVERLAP = {"SGLANG_DFLASH_CPU_OVERLAP": "on"}
BUSY = (
    "--enable-streaming-session",
    "--max-running-requests",
    4,
    "--chunked-prefill-size",
    32,
    "--enable-mixed-chunk",
    "--enable-priority-scheduling",
    "--priority-scheduling-preemption-threshold",
    2,
)


@pytest.fixture(scope="module")
def server(servers):
    return servers.dflash(*BUSY, **OVERLAP)


def post(server, path: str, **body):
    reply = httpx.post(f"{server.url}{path}", json=body, timeout=120, trust_env=False)
    reply.raise_for_status()
    return reply.json()


def test_priorities_preempt_while_prompts_come_in_chunks(server, plain, tokenizer):
    rng = random.Random(5)
    asks = [ask._replace(max_new_tokens=rng.randint(20, 90)) for ask in mixed_lengths(tokenizer, 20, 150, 2, seed=6)]

    def one(index: int):
        return server.client.generate(asks[index].prompt, asks[index].sampling(), priority=rng.choice((0, 1, 5, 9)))

    with ThreadPoolExecutor(len(asks)) as pool:
        answers = list(pool.map(one, range(len(asks))))
    assert_same(plain, asks, answers)
    assert sum(answer.meta.get("num_retractions", 0) for answer in answers) > 0


@pytest.mark.parametrize("streaming", [False, True])
def test_turns_of_a_session(server, plain, tokenizer, streaming):
    """Each turn goes on from the one before: the server puts the prompts and answers so far in front of it.

    A streaming session keeps its slots between turns.
    """
    session = post(server, "/open_session", capacity_of_str_len=4000, streaming=streaming)
    context, rid = (), None
    for ask in questions(tokenizer, 1)[:4]:
        turn = ask.prompt[:50]
        fields = {"input_ids": list(turn), "sampling_params": Ask(turn, 30).sampling()}
        given = post(server, "/generate", session_params={"id": session, "rid": rid}, **fields)
        context += turn
        (wanted,) = plain.of([Ask(context, 30)])
        assert tuple(given["output_ids"]) == wanted
        context, rid = context + wanted, None if streaming else given["meta_info"]["id"]
    httpx.post(f"{server.url}/close_session", json={"session_id": session}, trust_env=False)
    server.client.flush_cache()
    assert server.client.ready()


def test_prompts_as_embeddings(servers, pair, plain, tokenizer):
    server = servers.dflash("--disable-radix-cache", **OVERLAP)
    table = load_file(Path(pair.target) / "model.safetensors")["model.embed_tokens.weight"].float()
    asks = [Ask(ask.prompt[:40], 40) for ask in questions(tokenizer, 1)[:5]]

    def one(ask: Ask):
        embeds = table[list(ask.prompt)].tolist()
        return tuple(post(server, "/generate", input_embeds=embeds, sampling_params=ask.sampling())["output_ids"])

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(one, asks)) == plain.of(asks)
