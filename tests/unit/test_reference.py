"""The batch-1 reference against transformers and against PyPI's dflash, on held-out prompts in fp32."""

import json
import os
import pathlib
import time

import pytest
import torch
from transformers import AutoTokenizer

from sglang_dflash.reference import ReferenceDraft, generate, load_target, plain_greedy
from sglang_dflash.tools import pair
from sglang_dflash.tools.pair.heldout import HELDOUT_KINDS, build_records

PROMPTS = 30
# Both references cut the last block at the limit, but at different places; requests must end before.
MAX_NEW_TOKENS = 400


def pair_folders() -> tuple[pathlib.Path, pathlib.Path]:
    """Target and draft: the embedded pair, or the one under ``SGLANG_DFLASH_TEST_PAIR``."""
    if not pair.DRAFT_DIR.exists() and "SGLANG_DFLASH_TEST_PAIR" in os.environ:
        folder = pathlib.Path(os.environ["SGLANG_DFLASH_TEST_PAIR"])
        return folder / "target", folder / "draft"
    return pair.TARGET_DIR, pair.DRAFT_DIR


class Setup:
    """The pair once for this file, with tokenised prompts of every kind."""

    def __init__(self):
        target_folder, self.draft_folder = pair_folders()
        self.target, self.draft = load_target(target_folder), ReferenceDraft(self.draft_folder)
        end = json.loads((target_folder / "generation_config.json").read_text())["eos_token_id"]
        self.stop_ids = [end] if isinstance(end, int) else end
        tokenizer = AutoTokenizer.from_pretrained(target_folder)
        per_kind = -(-PROMPTS // len(HELDOUT_KINDS))
        self.prompts = [
            tokenizer.apply_chat_template(record["messages"], add_generation_prompt=True, return_dict=False)
            for kind in HELDOUT_KINDS
            for record in build_records(kind)[:per_kind]
        ]


@pytest.fixture(scope="module")
def setup():
    torch.set_num_threads(1)
    return Setup()


def emitted(generation) -> list[int]:
    """Tokens emitted per round, the last round cut where the request ended."""
    cut = list(generation.commit_lens)
    if cut:
        cut[-1] = len(generation.tokens) - 1 - sum(cut[:-1])
    return cut


@pytest.mark.parametrize("block_size", (2, 7, 16))
def test_equals_plain_decoding(setup, block_size):
    for prompt in setup.prompts[:12]:
        tokens = generate(setup.target, setup.draft, prompt, 150, setup.stop_ids, block_size).tokens
        assert tokens == plain_greedy(setup.target, prompt, 150, setup.stop_ids)


def test_plain_greedy_equals_transformers(setup):
    for prompt in setup.prompts[::6]:
        whole = setup.target.generate(
            torch.tensor([prompt]), max_new_tokens=100, do_sample=False, eos_token_id=setup.stop_ids
        )
        assert plain_greedy(setup.target, prompt, 100, setup.stop_ids) == whole[0, len(prompt) :].tolist()


def pypi_draft(folder):
    """The same checkpoint as PyPI's dflash loads it."""
    import dflash.model

    return dflash.model.DFlashDraftModel.from_pretrained(folder, dtype=torch.float32).eval()


def compare(setup, ours_draft, theirs_draft, prompts, block_size, monkeypatch) -> int:
    """Same tokens and same accept lengths per round; returns how many requests were compared in full."""
    import dflash.model

    monkeypatch.setattr(dflash.model, "_cuda_time", time.perf_counter)  # it synchronises CUDA
    compared = 0
    for prompt in prompts:
        ours = generate(setup.target, ours_draft, prompt, MAX_NEW_TOKENS, setup.stop_ids, block_size)
        theirs = dflash.model.dflash_generate(
            theirs_draft,
            setup.target,
            torch.tensor([prompt]),
            MAX_NEW_TOKENS,
            setup.stop_ids,
            block_size=block_size,
            return_stats=True,
        )
        assert ours.tokens == theirs.output_ids[0, len(prompt) :].tolist()
        if len(ours.tokens) + block_size < MAX_NEW_TOKENS:
            assert emitted(ours) == theirs.acceptance_lengths
            compared += 1
    return compared


@pytest.mark.parametrize("block_size", (5, 16))
def test_equals_pypi_dflash_round_for_round(setup, block_size, monkeypatch):
    theirs = pypi_draft(setup.draft_folder)
    compared = compare(setup, setup.draft, theirs, setup.prompts, block_size, monkeypatch)
    assert compared >= PROMPTS * 2 // 3


@pytest.mark.parametrize(
    "changes",
    (
        {"layer_types": "sliding_attention", "sliding_window": 6, "use_sliding_window": True},
        {"layer_types": "sliding_attention", "sliding_window": 20, "use_sliding_window": True} | {"is_causal": False},
        {"is_causal": True},
    ),
    ids=("window-6", "window-20-both-ways", "causal"),
)
def test_equals_pypi_dflash_with_other_layers(setup, changes, tmp_path, monkeypatch):
    config = json.loads((setup.draft_folder / "config.json").read_text())
    kinds = ["full_attention"] * config["num_hidden_layers"]
    kinds[0] = changes.get("layer_types", kinds[0])
    (tmp_path / "config.json").write_text(json.dumps(config | changes | {"layer_types": kinds}))
    (tmp_path / "model.safetensors").symlink_to((setup.draft_folder / "model.safetensors").resolve())
    ours, theirs = ReferenceDraft(tmp_path), pypi_draft(tmp_path)
    assert compare(setup, ours, theirs, setup.prompts[::5], 16, monkeypatch)


def test_layer_kinds_change_what_a_query_sees(setup):
    draft = ReferenceDraft(setup.draft_folder)
    draft.config.layer_types = ["full_attention", "sliding_attention"]
    draft.config.sliding_window = 4
    query, key = torch.arange(10, 13), torch.arange(13)
    assert draft._visible(0, query, key).all()
    sliding = [[q - 4 < k <= q for k in range(13)] for q in range(10, 13)]
    assert draft._visible(1, query, key).tolist() == sliding
    draft.is_causal = False
    both_ways = [[abs(q - k) < 4 for k in range(13)] for q in range(10, 13)]
    assert draft._visible(1, query, key).tolist() == both_ways
