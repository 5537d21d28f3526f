"""Log-probabilities and hidden states: plain decoding's, to float32's rounding, up to the very last token."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from exact import Ask, assert_close
from launcher import path_to_doubles
from workload import questions

OVERLAP = {"SGLANG_DFLASH_CPU_OVERLAP": "on"}
PLANTED = OVERLAP | {"SGLANG_DFLASH_PLANTED": "/dev/null", "PYTHONPATH": path_to_doubles()}
HIDDEN = "--enable-return-hidden-states"
SERVERS = {
    "chain": ((), {}),
    "overlap": (("--page-size", 16), OVERLAP),
    "tail": ((), PLANTED | {"SGLANG_DFLASH_PROPOSER": "tailed:TailedChain"}),
    "tree": ((), PLANTED | {"SGLANG_DFLASH_PROPOSER": "planted:PlantedTree"}),
    "two ranks": (("--tp-size", 2, "--chunked-prefill-size", 32), {}),
}
TOP, NAMED = 4, [5, 225, 40, 3]
# Sampling parameters, and how the request ends: every place of a block is the last one for some answer.
KINDS = (
    {},
    {"frequency_penalty": 0.6},
    {"repetition_penalty": 1.3},
    {"logit_bias": {"40": 3.0}},
    {"min_new_tokens": 30, "ignore_eos": False},
)


@pytest.fixture(scope="module")
def asks(tokenizer) -> list[Ask]:
    return [
        ask._replace(ignore_eos=bool(i % 4), max_new_tokens=20 + 3 * i) for i, ask in enumerate(questions(tokenizer, 1))
    ]


def fields_of(index: int) -> dict:
    """What request ``index`` wants to know; some want nothing, in the same batches."""
    wanted = {
        "return_logprob": True,
        "logprob_start_len": (0, -1, 3)[index % 3],
        "top_logprobs_num": TOP if index % 2 else 0,
        "token_ids_logprob": NAMED if index % 5 else None,
    }
    return ({}, wanted, wanted, {"return_hidden_states": True}, wanted | {"return_hidden_states": True})[index % 5]


def send(server, asks, concurrency: int, **more) -> list:
    def one(index: int):
        sampling = asks[index].sampling(**(KINDS[index % len(KINDS)] | more.get(str(index), {})))
        return server.client.generate(asks[index].prompt, sampling, stream=index % 3 == 0, **fields_of(index))

    with ThreadPoolExecutor(concurrency) as pool:
        return list(pool.map(one, range(len(asks))))


@pytest.fixture(scope="module")
def wanted(servers, asks):
    return send(servers.plain(HIDDEN), asks, 6)


def by_token(rows: list) -> list:
    """Top tokens sorted by id where their order is a tie's, up to the last: another may stand in its place."""
    return [row and sorted(row, key=lambda entry: (round(entry[0], 2), entry[1])) for row in rows]


def same_prompt_rows(want: list | None, got: list | None, chunked: bool):
    """Prefixes found in the cache have no states to give, nor have chunks before the last: the others are compared."""
    if want is None or got is None:
        return want, got
    count = 0 if chunked else min(len(want[0]), len(got[0]))
    assert chunked or count
    return [want[0][len(want[0]) - count :], *want[1:]], [got[0][len(got[0]) - count :], *got[1:]]


def compare(wanted, given, flags=()) -> int:
    """-> how many numbers were compared."""
    numbers = 0
    for index, (want, got) in enumerate(zip(wanted, given, strict=True)):
        assert got.token_ids == want.token_ids, index
        assert got.meta["finish_reason"] == want.meta["finish_reason"]
        names = {name for name in want.meta if "logprobs" in name or name == "hidden_states"}
        assert names == {name for name in got.meta if "logprobs" in name or name == "hidden_states"}
        for name in names:
            one, other = want.meta[name], got.meta[name]
            if "top" in name:
                one, other = by_token(one), by_token(other)
            if name == "hidden_states":
                one, other = same_prompt_rows(one, other, "--chunked-prefill-size" in flags)
            if name == "output_token_logprobs":
                assert len(other) == len(got.token_ids)
            assert_close(one, other, f"request {index}, {name}")
            numbers += len(one) if isinstance(one, list) else 1
    return numbers


@pytest.mark.parametrize("name", SERVERS)
def test_reports_are_plain_decodings(servers, asks, wanted, name):
    flags, environment = SERVERS[name]
    server = servers.dflash(HIDDEN, *flags, **environment)
    trees = {}
    if name == "tree":
        for index, answer in enumerate(wanted):
            plan = ([1, 6, 16], [3, 9], [16])[index % 3]
            continuation = [*answer.token_ids, *range(20)]
            trees[str(index)] = {"custom_params": {"commit_lens": plan, "continuation": continuation}}
    for concurrency in (1, 7):
        given = send(server, asks, concurrency, **trees)
        if "--chunked-prefill-size" in flags:
            # A prompt's states are those of its last chunk.
            for answer in (*wanted, *given):
                if answer.meta.get("hidden_states"):
                    answer.meta["hidden_states"] = [
                        s for s in answer.meta["hidden_states"] if not isinstance(s[0], list)
                    ]
        assert compare(wanted, given, flags) > 1000
        assert all(got.rounds < len(got.token_ids) for got in given if len(got.token_ids) > 20)


@pytest.mark.parametrize("overlap", ({}, OVERLAP), ids=("", "overlap"))
def test_sampling_masks_are_plain_decodings(servers, asks, overlap):
    """Greedy batches, and seeded samples, of which some want the log-probabilities of all that could be chosen."""
    flag = "--enable-deterministic-inference"
    plain, server = servers.plain(flag), servers.dflash(flag, **overlap)

    def masks(of, greedy: bool) -> list:
        def one(index: int):
            sampled = {"temperature": 0.8, "top_k": 5, "top_p": 0.95, "sampling_seed": 70 + index}
            sampling = asks[index].sampling(**({"top_k": 1} if greedy else sampled))
            fields = {"return_sampling_mask": True} if index % 3 else {}
            if index % 3 == 2:
                fields["sampling_logprobs_mode"] = "support"
            return of.client.generate(asks[index].prompt, sampling, **fields)

        with ThreadPoolExecutor(6) as pool:
            return list(pool.map(one, range(len(asks))))

    for greedy in (True, False):
        wanted, given = masks(plain, greedy), masks(server, greedy)
        names = [name for name in wanted[2].meta if "sampling" in name]
        assert names
        for index, (want, got) in enumerate(zip(wanted, given, strict=True)):
            assert got.token_ids == want.token_ids
            for name in names:
                assert_close(want.meta.get(name), got.meta.get(name), f"request {index}, {name}")


def test_chat_answers_with_log_probs(servers):
    question = [{"role": "user", "content": "What is 13 + 4420?"}]
    asked = {"logprobs": True, "top_logprobs": 2, "max_tokens": 60, "temperature": 0, "frequency_penalty": 0.3}
    answers = []
    for server in (servers.plain(HIDDEN), servers.dflash(HIDDEN)):
        rows = server.client.chat(question, **asked)["choices"][0]["logprobs"]["content"]
        answers.append(
            [[row["token"], row["logprob"], [top["logprob"] for top in row["top_logprobs"]]] for row in rows]
        )
    assert len(answers[0]) > 20
    assert_close(*answers, "chat")
