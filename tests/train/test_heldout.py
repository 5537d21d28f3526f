"""Held-out sets: shipped as generated, and absent from the training stream."""

import json
import re

import pytest

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.pair.checks import is_right
from sglang_dflash.tools.pair.heldout import HELDOUT_KINDS, build_records, load_heldout
from sglang_dflash.tools.pair.kinds import KINDS
from sglang_dflash.tools.pair.stream import TrainingStream, heldout_keys, training_examples, validation_examples


def plain(text):
    return re.sub(r"\s+", "", text).lower().strip(".?!")


@pytest.mark.parametrize("kind", HELDOUT_KINDS)
def test_shipped_files_are_what_the_generators_give(kind):
    shipped = load_heldout(kind)
    assert shipped == json.loads(json.dumps(build_records(kind)))
    assert len(shipped) == 100
    assert all(is_right(r["answer"], r) for r in shipped)


def test_no_heldout_prompt_is_in_the_training_stream():
    for kind in KINDS:
        asked = {plain(r["messages"][-1]["content"]) for r in load_heldout(kind)}
        examples = training_examples(kind, seed=1)
        seen = [next(examples)[1] for _ in range(2500)]
        assert sum(plain(e.question) in asked for e in seen) == 0, kind
        assert sum(e.key in heldout_keys(kind) for e in seen) == 0, kind


def test_no_heldout_prompt_in_drawn_chats_of_one_or_two_turns():
    asked = {plain(r["messages"][0]["content"]) for kind in KINDS for r in load_heldout(kind)}
    stream = TrainingStream(1)
    hits = sum(plain(q) in asked for _ in range(8000) for q, _ in stream.next_chat()[1])
    assert hits == 0


def test_the_exclusion_does_something():
    for kind in ("roman", "day"):
        examples = training_examples(kind, seed=1)
        last = 0
        for _ in range(1500):
            last, _ = next(examples)
        assert last + 1 > 1500, "small spaces must have had draws blocked"


def test_validation_is_apart_from_heldout():
    for kind in KINDS:
        held = {json.dumps(r["key"]) for r in load_heldout(kind)}
        assert not held & {json.dumps(list(e.key)) for e in validation_examples(kind)}


def test_unknown_kind_names_the_known_ones():
    with pytest.raises(DFlashError, match="kind.*add"):
        load_heldout("poems")
