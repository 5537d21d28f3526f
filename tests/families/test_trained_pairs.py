"""Small trained targets with drafts trained on them: what a server accepts is what the batch-1 replay accepts."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from checkpoints import TOKENIZER_FILES
from compare import assert_greedy
from oracle import Oracle
from safetensors.torch import load_file, save_file
from table import BY_NAME

from sglang_dflash.tools.pair import TARGET_DIR
from sglang_dflash.tools.pair.heldout import load_heldout
from sglang_dflash.tools.pair.tokenizer import END, build_tokenizer, encode_prompt
from sglang_dflash.tools.serve import ServerProcess, ServerSpec
from sglang_dflash.tools.train.draft_data import answered
from sglang_dflash.tools.train.draft_io import load_draft
from sglang_dflash.tools.train.frozen import HubTarget
from sglang_dflash.tools.train.replay import replay

PAIRS = Path(__file__).parent / "pairs"
NAMES = sorted(path.parent.name for path in PAIRS.glob("*/evaluation.json"))
KINDS = ("roman", "convert", "py", "count", "refuse")
PER_KIND = 3
pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module", params=NAMES)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def folders(name, tmp_path_factory) -> tuple[Path, Path]:
    """(target, draft) in float32, the target with the embedded pair's tokenizer."""
    folder = tmp_path_factory.mktemp("trained")
    unpack(PAIRS / name / "target", folder / "target", BY_NAME[name].published)
    unpack(PAIRS / name / "draft", folder / "draft", {})
    for file in TOKENIZER_FILES:
        shutil.copy(TARGET_DIR / file, folder / "target" / file)
    return folder / "target", folder / "draft"


def unpack(kept: Path, out: Path, published: Mapping) -> None:
    """A kept bfloat16 checkpoint as a float32 one: some of SGLang's models go by their config's dtype alone."""
    out.mkdir()
    config = json.loads((kept / "config.json").read_text()) | {"dtype": "float32"} | dict(published)
    (out / "config.json").write_text(json.dumps(config))
    tensors = {name: tensor.float() for name, tensor in load_file(kept / "model.safetensors").items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    tokenizer = build_tokenizer()
    return [
        encode_prompt(tokenizer, record["messages"][-1]["content"])
        for kind in KINDS
        for record in load_heldout(kind, PER_KIND)
    ]


@pytest.fixture(scope="module")
def answers(name, folders, prompts, logs, launch):
    family = BY_NAME[name]
    spec = ServerSpec(*map(str, folders), "dflash", exact=True).with_flags(*family.flags)
    with ServerProcess(spec.with_env(**family.env), logs, launcher=launch) as server:
        return server.client.generate_many(prompts, 4, {"temperature": 0.0, "max_new_tokens": 200})


def test_answers_are_transformers_greedy_ones(name, folders, prompts, answers):
    oracle = Oracle(BY_NAME[name].model, *folders)
    for prompt, answer in zip(prompts, answers, strict=True):
        logits = oracle.logits([*prompt, *answer.token_ids[:-1]])[len(prompt) - 1 :]
        assert_greedy(logits, answer.token_ids, f"prompt of {len(prompt)}")


def test_as_many_rounds_as_the_replay(folders, prompts, answers):
    torch.set_num_threads(1)
    target, (draft, config) = HubTarget(str(folders[0])), load_draft(folders[1])
    settings = config["dflash_config"]
    for prompt, answer in zip(prompts, answers, strict=True):
        rounds = replay(
            target,
            draft,
            [answered(prompt, list(answer.token_ids))],
            settings["target_layer_ids"],
            config["block_size"],
            settings["mask_token_id"],
        )
        assert answer.rounds == len(rounds.commit_lens[0]), f"prompt of {len(prompt)}"


def test_shapes_by_chance_change_nothing(name, folders, prompts, answers, logs, launch):
    """Recurrent states, sliding windows and experts whose rounds are now plain, now chains of one width or another."""
    family = BY_NAME[name]
    spec = ServerSpec(*map(str, folders), "dflash", exact=True).with_flags(*family.flags)
    with ServerProcess(spec.with_env(**family.env, SGLANG_DFLASH_SHAPE="random"), logs, launcher=launch) as server:
        mixed = server.client.generate_many(prompts, 4, {"temperature": 0.0, "max_new_tokens": 200})
    assert [answer.token_ids for answer in mixed] == [answer.token_ids for answer in answers]
    assert sum(answer.rounds for answer in mixed) > sum(answer.rounds for answer in answers)


def test_drafts_are_accepted(name, answers):
    """Real acceptance, and close to what was recorded when the pair was made."""
    assert all(answer.token_ids[-1] == END or answer.finish_reason == "length" for answer in answers)
    tokens, rounds = sum(len(a.token_ids) - 1 for a in answers), sum(a.rounds for a in answers)
    recorded = json.loads((PAIRS / name / "evaluation.json").read_text())["summary"]["accept_length"]
    print(f"{name}: accept length {tokens / rounds:.2f}, recorded {recorded:.2f}")
    assert tokens / rounds > 2


WORDS = "[a-z]+( [a-z]+){2,9}[.]"


def test_constrained_answers_are_plain_decodings(name, folders, prompts, logs, launch):
    """States of recurrent layers go where the grammar lets the target go: an answer may end inside of a round."""
    if name not in ("qwen3.5", "nemotron-h"):
        pytest.skip("no recurrent layers; others are compared with the embedded pair")
    family, params = BY_NAME[name], {"temperature": 0.0, "max_new_tokens": 60}
    given = {}
    for worker in ("plain", "dflash"):
        draft = None if worker == "plain" else str(folders[1])
        spec = ServerSpec(str(folders[0]), draft, worker, exact=True).with_flags(*family.flags).with_env(**family.env)
        with ServerProcess(spec, logs, launcher=launch) as server:
            free = server.client.generate_many(prompts[::3], 4, params)
            given[worker] = server.client.generate_many(prompts, 6, params | {"regex": WORDS})
            # What the radix cache keeps of constrained answers is theirs.
            given[worker] += server.client.generate_many(prompts, 6, params | {"regex": WORDS}) + free
    for want, got in zip(given["plain"], given["dflash"], strict=True):
        assert (got.token_ids, got.finish_reason) == (want.token_ids, want.finish_reason)
    answers = given["dflash"][: len(prompts)]
    assert sum(answer.finish_reason == "stop" for answer in answers) > 3
    assert all(re.fullmatch(WORDS, answer.text) for answer in answers if answer.finish_reason == "stop")
