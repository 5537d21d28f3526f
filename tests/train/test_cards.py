"""A draft's card: what was measured, and what its folder records."""

import json

import pytest
from conftest import scramble, small_shape
from huggingface_hub import ModelCard

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.train.cards import write_card
from sglang_dflash.tools.train.draft_io import draft_config, save_draft
from sglang_dflash.tools.train.draft_model import DraftNetwork

RESULTS = {
    "summary": {
        "mean_over_kinds": 2.5,
        "accept_length": 2.25,
        "rounds": 1234,
        "kept_by_position": [0.5, 0.25, 0.125],
        "kept_given_previous": [0.5, 0.5, 0.5],
    },
    "kinds": [{"kind": "k", "prompts": 3, "accept_length": 2.5, "mean_tokens": 40.4, "repeated_4grams": 0.071}],
}


def test_a_card_says_what_was_measured_and_recorded(tmp_path):
    network = DraftNetwork(small_shape(40, 2), 3)
    scramble(network)
    save_draft(tmp_path, network, draft_config(small_shape(40, 2), 6, [0, 2, 4], 4, 7, 2048))
    with pytest.raises(DFlashError, match="no provenance.json"):
        write_card(tmp_path, RESULTS)
    record = {
        "steps": 2100,
        "tokens": 1_000_000,
        "trained_minutes": 36.4,
        "settings": {"seed": "7", "target": "x/T-1B"},
    }
    (tmp_path / "provenance.json").write_text(json.dumps(record))
    (tmp_path / "curve.csv").write_text("step,minutes,tokens,loss,mean,k\n1042,17,311160,4.28,1.32,1.3\n")
    write_card(tmp_path, RESULTS)
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "sglang")
    count = sum(p.numel() for p in network.parameters())
    for said in (
        "# DFlash draft of T-1B",
        f"{count:,} own parameters: 2 layers, block 4",
        "target layers 0, 2, 4;",
        "2,100 steps, 1,000,000 target tokens, 36 minutes, seed 7",
        "| 1042 | 311160 | 4.28 | 1.32 |",
        "| k | 3 | 2.50 | 40 | 7 |",
        "over all 1,234 rounds 2.25",
        "position 1..3, where the text went on that far: 0.50 0.25 0.12;",
    ):
        assert said in card.text, said
    with pytest.raises(DFlashError, match="needs a draft"):
        write_card(None, RESULTS)
