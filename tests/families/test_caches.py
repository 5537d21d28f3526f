"""What the radix cache keeps of a hybrid target's states: every strategy, page size and schedule, plain and DFLASH.

Judge of all: plain decoding without a cache. Prompts come back whole, longer by their answer, cut where a state is
kept (a multiple of 64 tokens) and cut where none is. Some combinations always; --slow runs them all.
"""

import json
import random
from typing import NamedTuple

import pytest
from asks import Ask, _ids
from compare import assert_same
from family import BLOCK
from launcher import path_to_doubles
from table import BY_NAME

from sglang_dflash.tools.serve import ServerProcess, ServerSpec

STEP = 64  # tokens between kept states, the smallest that SGLang takes
PLANS = ([1, BLOCK, 3], [BLOCK], [2], [5, 1, 1, 4])


class Cell(NamedTuple):
    """One way to keep states."""

    strategy: str
    page: int
    overlap: bool

    def __str__(self) -> str:
        return f"{self.strategy}-page{self.page}-{'overlap' if self.overlap else 'sync'}"

    def serve(self, spec: ServerSpec) -> ServerSpec:
        spec = spec.with_flags("--mamba-radix-cache-strategy", self.strategy, "--page-size", self.page)
        if self.strategy != "no_buffer":
            spec = spec.with_flags("--mamba-track-interval", STEP)
        if self.overlap:
            return spec.with_env(SGLANG_DFLASH_CPU_OVERLAP="on")
        return spec.with_flags("--disable-overlap-schedule")


CELLS = (
    Cell("no_buffer", 1, False),
    Cell("extra_buffer", 1, False),
    Cell("extra_buffer", 1, True),
    Cell("extra_buffer", 16, False),
    Cell("extra_buffer", 16, True),
    Cell("extra_buffer_lazy", 16, True),
)
# One family per kind of recurrent layer; the others differ in what is around it.
QUICK_FAMILIES, QUICK_CELLS = ("qwen3.5", "nemotron-h"), (CELLS[0], CELLS[1], CELLS[4])
NAMES = (*QUICK_FAMILIES, "qwen3-next", "qwen3.5-moe", "qwen3.5-vl", "nemotron-h-moe")


def _cases():
    for name in NAMES:
        for cell in CELLS:
            quick = name in QUICK_FAMILIES and cell in QUICK_CELLS
            yield pytest.param(BY_NAME[name], cell, marks=() if quick else pytest.mark.slow, id=f"{name}-{cell}")


@pytest.fixture(scope="module")
def family(request):
    return request.param


def _first_turns() -> list[Ask]:
    rng = random.Random(7)
    return [Ask(_ids(rng, length), 75) for length in (70, 128, 150)]


def _second_turns(plain) -> list[Ask]:
    rng = random.Random(8)
    asks = []
    for ask in _first_turns():
        whole = ask.prompt + plain[ask].token_ids[: ask.max_new_tokens]
        kept, between = whole[: STEP * (len(ask.prompt) // STEP)], whole[: len(ask.prompt) - 6]
        asks += [Ask(tokens + _ids(rng, 5), 20) for tokens in (whole, kept, between)]
        asks.append(ask._replace(max_new_tokens=20))
    return asks


@pytest.fixture(scope="module")
def plain(family, pair, logs, launch):
    """Plain decoding's answers without a cache: {ask: Generation}."""
    spec = ServerSpec(str(pair[0]), None, "plain", exact=True).with_flags(*family.flags, "--disable-radix-cache")
    answers = {}
    with ServerProcess(spec, logs, launcher=launch) as server:
        for asks in (_first_turns(), None):
            asks = asks or _second_turns(answers)
            params = [ask.sampling(longer=True) for ask in asks]
            answers.update(zip(asks, server.client.generate_many([a.prompt for a in asks], 8, params), strict=True))
    return answers


@pytest.fixture(scope="module")
def planted(plain, tmp_path_factory):
    """Environment of a server that drafts plain decoding's answers, with errors where a request asks for them."""
    path = tmp_path_factory.mktemp("planted") / "continuations.jsonl"
    # A prompt that is asked twice has its longer answer last: the double keeps that one.
    known = sorted(plain.items(), key=lambda item: len(item[1].token_ids))
    rows = ({"prompt": list(ask.prompt), "output": list(answer.token_ids)} for ask, answer in known)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "PYTHONPATH": path_to_doubles(),
        "SGLANG_DFLASH_PROPOSER": "recorded:RecordedTree",
        "SGLANG_DFLASH_PLANTED": str(path),
        "SGLANG_DFLASH_DRAFTED": str(path.with_name("drafted.jsonl")),
    }


def _turns(cell: Cell, server, oracle, plain, shape: str | None = None) -> None:
    """First turns, and second ones twice: every answer is plain decoding's. ``shape``: of planted drafts."""
    server.client.flush_cache()
    for visit, asks in enumerate((_first_turns(), _second_turns(plain), _second_turns(plain))):
        plans = [PLANS[i % len(PLANS)] for i in range(len(asks))]
        custom = [{"shape": shape, "commit_lens": plan} if shape else None for plan in plans]
        params = [ask.sampling(custom_params=planted) for ask, planted in zip(asks, custom, strict=True)]
        answers = server.client.generate_many([ask.prompt for ask in asks], 3, params)
        for i, (ask, plan, answer) in enumerate(zip(asks, plans, answers, strict=True)):
            what = f"{shape or 'plain'}, visit {visit}, prompt {i}"
            assert_same(oracle, ask, plain[ask].token_ids, answer.token_ids, what)
            if shape:
                assert answer.rounds == _rounds(ask.max_new_tokens, plan), what
        if visit == 1:
            _check_hits(cell, asks, [answer.cached_tokens for answer in answers], shape)


def _rounds(tokens: int, plan: list[int]) -> int:
    """Rounds of ``plan`` for an answer; its first token is the prefill's."""
    left, rounds = tokens - 1, 0
    while left > 0:
        left -= plan[rounds % len(plan)]
        rounds += 1
    return rounds


def _check_hits(cell: Cell, asks: list[Ask], cached: list[int], shape: str | None) -> None:
    """The second turns' prefix hits end where a state was kept, and nowhere else."""
    whole, kept, between = (slice(i, None, 4) for i in range(3))
    if cell.strategy == "no_buffer":
        # A state past the answer's last token is not kept: of ours, only the third answer ends with a round.
        ends = [len(ask.prompt) - 6 for ask in asks[whole]]
        prompts = [len(ask.prompt) for ask in _first_turns()]
        assert cached[whole] == (ends if shape is None else [*prompts[:2], ends[2]])
        return
    assert cached[whole] == [(len(ask.prompt) - 5) // STEP * STEP for ask in asks[whole]]
    assert cached[kept] == [len(ask.prompt) - 5 for ask in asks[kept]]
    assert all(count % STEP == 0 for count in cached[between])


@pytest.mark.parametrize("family, cell", _cases(), indirect=["family"], scope="module")
def test_every_way_to_keep_states(family, pair, oracle, plain, planted, logs, launch, cell):
    target, draft = map(str, pair)
    spec = cell.serve(ServerSpec(target, None, "plain", exact=True).with_flags(*family.flags))
    with ServerProcess(spec, logs, launcher=launch) as server:
        _turns(cell, server, oracle, plain)
    spec = cell.serve(ServerSpec(target, draft, "dflash", exact=True).with_flags(*family.flags)).with_env(**planted)
    with ServerProcess(spec, logs, launcher=launch) as server:
        for shape in ("chain", "tree"):
            _turns(cell, server, oracle, plain, shape)
