"""The shipped weights: complete, within the size limit, loadable, and right on a sample."""

import json

from sglang_dflash.tools.pair import DRAFT_DIR, PAIR_DIR, TARGET_DIR
from sglang_dflash.tools.pair.heldout import HELDOUT_KINDS
from sglang_dflash.tools.pair.kinds import COPY_KINDS, FREE_KINDS
from sglang_dflash.tools.pair.stream import heldout_keys, training_examples
from sglang_dflash.tools.pair.tokenizer import END, MASK, PAD, build_tokenizer
from sglang_dflash.tools.train.draft_io import load_draft
from sglang_dflash.tools.train.evaluate import evaluate


def config(folder):
    return json.loads((folder / "config.json").read_text())


def test_at_most_25_megabytes():
    files = [p for p in (PAIR_DIR / "weights").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 25e6


def test_configs_fit_each_other():
    target, draft = config(TARGET_DIR), config(DRAFT_DIR)
    assert target["architectures"] == ["Qwen3ForCausalLM"] and draft["architectures"] == ["DFlashDraftModel"]
    assert (target["eos_token_id"], target["pad_token_id"]) == (END, PAD)
    assert target["max_position_embeddings"] >= 4096
    assert draft["block_size"] == 16 and draft["dflash_config"]["mask_token_id"] == MASK
    assert draft["num_target_layers"] == target["num_hidden_layers"]
    assert max(draft["dflash_config"]["target_layer_ids"]) <= target["num_hidden_layers"] - 2
    for field in ("hidden_size", "vocab_size", "max_position_embeddings", "rope_theta"):
        assert target[field] == draft[field]


def test_tokenizer_is_the_one_the_builder_gives():
    from tokenizers import Tokenizer

    shipped = Tokenizer.from_file(str(TARGET_DIR / "tokenizer.json"))
    assert shipped.get_vocab() == build_tokenizer().get_vocab()
    assert shipped.get_vocab_size() == config(TARGET_DIR)["vocab_size"]


def test_loads_in_transformers_without_missing_weights():
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(TARGET_DIR, output_loading_info=True)
    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]


def test_draft_weights_fit_exactly():
    network, _ = load_draft(DRAFT_DIR)
    assert 1e5 < sum(p.numel() for p in network.parameters()) < 2e6


def test_the_whole_training_stream_held_no_heldout_prompt():
    """Every example index that the recorded runs consumed, a sample of each kind's range."""
    for folder in (TARGET_DIR, DRAFT_DIR):
        record = json.loads((folder / "provenance.json").read_text())
        for kind, end in record["stream"]["position"].items():
            for start in range(0, end, max(1, end // 4)):
                examples = training_examples(kind, record["stream"]["seed"], start)
                keys = {next(examples)[1].key for _ in range(100)}
                assert not keys & heldout_keys(kind)


def test_recorded_evaluation_reaches_the_goals():
    record = json.loads((DRAFT_DIR / "evaluation.json").read_text())
    for result in record["kinds"]:
        if result["kind"] not in FREE_KINDS:
            assert result["right_share"] >= (0.8 if result["kind"] in COPY_KINDS else 0.95), result["kind"]
    assert record["summary"]["mean_over_kinds"] >= 6.0
    assert {result["kind"] for result in record["kinds"]} == set(HELDOUT_KINDS)


def test_a_sample_of_every_set_gives_what_is_recorded():
    record = {r["kind"]: r for r in json.loads((DRAFT_DIR / "evaluation.json").read_text())["kinds"]}
    measured = evaluate(str(TARGET_DIR), DRAFT_DIR, 8)
    for result in measured["kinds"]:
        if result["kind"] not in FREE_KINDS:
            assert result["right"] >= 6, result["wrong"]
        assert result["accept_length"] > 0.6 * record[result["kind"]]["accept_length"]
    assert measured["summary"]["mean_over_kinds"] >= 6.0
    assert len(measured["summary"]["kept_by_position"]) == 15
