"""Every architecture family on the CPU platform: plain decoding against transformers, DFLASH against plain decoding.

Per family one plain server and two under our worker: chains without a radix cache, and random trees with one,
overlap scheduling and pages. Both prefill in chunks, which plain decoding does not.
"""

import torch
from asks import every_ask, ladder, long_prompts, shared_prefixes
from compare import assert_greedy, assert_same
from family import BLOCK
from images import image_prompts

CLOSE = 2e-3  # nats; two float32 computations of a log-probability
# Of the draft's logits, whose sharp random attention enlarges what float32 leaves open in the target's features.
DRAFT_TIE = 1e-2


def _check(oracle, plain, asks, answers, what):
    for ask, answer in zip(asks, answers, strict=True):
        assert_same(oracle, ask, plain[ask].token_ids, answer.token_ids, what)


def _check_plain(logits, answer, what):
    assert_greedy(logits, answer.token_ids, what)
    expected = logits.log_softmax(-1).max(-1).values
    for at, (want, got) in enumerate(zip(expected.tolist(), answer.log_probs, strict=True)):
        assert abs(want - got) < CLOSE, f"{what}, token {at}: {got} instead of {want}"


def test_plain_decoding_equals_transformers(oracle, plain):
    for ask, answer in plain.items():
        tokens = ask.prompt + answer.token_ids
        logits = oracle.logits(tokens[:-1])[len(ask.prompt) - 1 :]
        _check_plain(logits, answer, f"prompt of {len(ask.prompt)}")


def test_answers_vary(plain):
    # A random model that repeats itself would hide a lost or misplaced token.
    for answer in plain.values():
        assert len(set(answer.token_ids)) > len(answer.token_ids) // 2


def test_every_commit_length(served, oracle, plain):
    asks = ladder()
    for concurrency in (len(asks), 1):
        params = [ask.sampling(custom_params={"commit_lens": [commit]}) for commit, ask in enumerate(asks, 1)]
        answers = served.planned(asks, concurrency, params)
        _check(oracle, plain, asks, answers, f"{concurrency} at a time")
        for commit, answer in enumerate(answers, 1):
            # The first token is the prefill's; the last round is cut where the request ends.
            assert answer.rounds == -(-(asks[0].max_new_tokens - 1) // commit)


def test_mixed_commit_lengths_in_one_batch(served, oracle, plain):
    plans = [[1, BLOCK, 2, BLOCK - 1], [5, 3], [BLOCK], [1], [7, 1, 1, 4], [4, 2, BLOCK, 1], [3, 3, 1]]
    asks = every_ask()
    params = [
        ask.sampling(custom_params={"commit_lens": plans[i % len(plans)]} if i % 8 else {"record": False})
        for i, ask in enumerate(asks)
    ]
    _check(oracle, plain, asks, served.planned(asks, 6, params), "mixed plans")


def test_planted_chains(served, oracle, plain):
    # On the tree server these go through its chain path.
    asks = ladder() + long_prompts()
    answers = served.answers(asks, 4, commit_lens=[3, BLOCK, 1, 6], shape="chain")
    _check(oracle, plain, asks, answers, "planted chain")


def test_prefix_hits_and_chunks(served, family, oracle, plain):
    asks = shared_prefixes() + long_prompts()
    served.flush()
    for visit in ("first", "second"):
        answers = served.answers(asks, 2, commit_lens=[2, 5, BLOCK, 1])
        _check(oracle, plain, asks, answers, f"{visit} visit")
    cached = sum(answer.cached_tokens for answer in answers)
    assert cached == 0 if "--disable-radix-cache" in family.chain_flags and served.shape == "chain" else cached > 200


def test_the_draft_sees_what_it_was_trained_on(served, oracle, plain):
    """The served draft's tokens are those of the batch-1 reference over transformers' own hidden states."""
    asks = ladder()[:3] + long_prompts()[:2] + shared_prefixes()[1:3]
    served.take_drafted()
    answers = served.answers(asks, 3, record=True)
    _check(oracle, plain, asks, answers, "real draft")
    answer_of = {ask.prompt: answer.token_ids for ask, answer in zip(asks, answers, strict=True)}
    rows = served.take_drafted()
    assert len(rows) >= len(asks)
    for prompt, answer in answer_of.items():
        tokens = prompt + answer
        outputs = oracle.layer_outputs({"input_ids": torch.tensor([tokens])})
        for row in [row for row in rows if tuple(row["prompt"]) == prompt and row["prefix"] < len(tokens)][::4]:
            logits = oracle.draft_logits(outputs, row["prefix"], tokens[row["prefix"]])
            assert_greedy(logits, row["drafted"], f"draft after {row['prefix']} tokens", DRAFT_TIE)


def _image_prompts(family):
    return image_prompts(family.image_token, family.image_size)


def test_image_prompts_plain(family, oracle, plain):
    for prompt, answer in zip(_image_prompts(family), plain.images, strict=True):
        logits = oracle.logits_of(prompt.inputs(oracle.processor, answer.token_ids[:-1]))
        _check_plain(logits[-len(answer.token_ids) :], answer, prompt.text)


def test_image_prompts(family, served, oracle, plain):
    for prompt, want in zip(_image_prompts(family), plain.images, strict=True):
        tokens = want.token_ids
        # Planted ones cannot look beyond the end of what plain decoding said.
        planted = {"commit_lens": [3, 1, 5], "continuation": list(tokens) + [0] * BLOCK}
        for asked in ({"record": True}, planted, planted | {"shape": "chain"}):
            answer = prompt.generate(served.client, **asked)
            assert answer.token_ids == tokens, f"{prompt.text} with {asked}"
        inputs = prompt.inputs(oracle.processor, tokens)
        first = inputs["input_ids"].shape[1] - len(tokens)
        outputs = oracle.layer_outputs(inputs)
        for row in [row for row in served.take_drafted() if row["prefix"] < first + len(tokens)][::4]:
            logits = oracle.draft_logits(outputs, row["prefix"], tokens[row["prefix"] - first])
            assert_greedy(logits, row["drafted"], f"{prompt.text}: draft after {row['prefix']} tokens", DRAFT_TIE)
