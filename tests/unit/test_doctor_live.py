"""A run's verdict: the replay equals the reference's own loop, and wrong wirings are told from weak drafts."""

import json
from dataclasses import replace

import pytest
import torch
from planted_mistakes import CPU, THINKS, Mistake, plant, tensors, write_text
from rich.console import Console
from typer.testing import CliRunner

from sglang_dflash import cli
from sglang_dflash.checkpoints.checks.case import Plan
from sglang_dflash.reference import ReferenceKind, generate, load_target
from sglang_dflash.tools.doctor import check as check_module
from sglang_dflash.tools.doctor.check import check, check_and_run, served_flags
from sglang_dflash.tools.doctor.live.measured import Measured, measured
from sglang_dflash.tools.doctor.live.prompts import prompts_for
from sglang_dflash.tools.doctor.live.replay import record, replay
from sglang_dflash.tools.doctor.live.run import _modes, _no_reference, compared
from sglang_dflash.tools.doctor.live.verdict import Verdict
from sglang_dflash.tools.doctor.live.wirings import wirings
from sglang_dflash.tools.pair import DRAFT_DIR, TARGET_DIR
from sglang_dflash.tools.serve import Generation

STOP = 3  # <|end|>
SMALL = Mistake("", "note", "")


@pytest.fixture(scope="module")
def target():
    return load_target(TARGET_DIR)


@pytest.fixture(scope="module")
def answers(target):
    """(prompt, the reference's greedy generation) of some held-out questions."""
    draft = ReferenceKind(DRAFT_DIR)
    prompts = prompts_for(str(TARGET_DIR), TARGET_DIR, 6, None)
    return [(prompt, generate(target, draft, list(prompt), 96, {STOP})) for prompt in prompts]


def test_the_replay_is_the_references_own_loop(target, answers):
    draft = ReferenceKind(DRAFT_DIR)
    for prompt, generation in answers:
        recording = record(target, prompt, generation.tokens)
        assert recording.agreement == 1.0
        kept = replay(target, draft, recording, draft.block_size)
        assert len(kept) == len(generation.commit_lens)
        # In the last round the loop may go on behind the answer's end.
        assert [count + 1 for count in kept[:-1]] == generation.commit_lens[:-1]


def test_recorded_outputs_are_the_layers_own(target, answers):
    """The last layer's, too, before the final norm: through the head they give the recorded logits again."""
    prompt, generation = answers[0]
    recording = record(target, prompt, generation.tokens)
    assert recording.hidden_states.shape == (8, len(prompt) + len(generation.tokens), 128)
    with torch.inference_mode():
        logits = target.lm_head(target.model.norm(recording.hidden_states[-1]))
    assert logits[len(prompt) - 1 : -1].argmax(-1).tolist() == generation.tokens


@pytest.mark.parametrize(
    ("mistake", "reason"),
    [
        (SMALL, ""),
        (Mistake("", "note", "", draft={"architectures": ["LiLiCorrDraftModel"]}), "it has no LiLiCorr"),
        (Mistake("", "note", "", target={"model_type": "mimo_v2"}), "transformers has no class for the target"),
        (Mistake("", "note", "", edit=lambda target, draft: (draft / "model.safetensors").unlink()), "the draft is st"),
        (Mistake("", "note", "", target={"vocab_size": 1 << 40}), "it takes "),
    ],
)
def test_why_there_is_no_reference(mistake, reason, tmp_path):
    found = _no_reference(check(*plant(mistake, tmp_path), Plan(), CPU).reading)
    assert found.startswith(reason) and bool(found) is bool(reason)


def verdict_of(mistake: Mistake, answers, tmp_path, served: Measured | None = None) -> Verdict:
    """What a run would say if the server accepted what the reference does with this config."""
    reading = check(*plant(mistake, tmp_path), Plan(), CPU).reading
    prompts = [prompt for prompt, _ in answers]
    texts = [Generation(tuple(each.tokens), "", {}, 0.0, 1.0) for _, each in answers]
    found = compared(reading, load_target(reading.target_folder), prompts, texts, Measured(1, 1, (0,) * 16))
    return replace(found, served=served or found.reference)


def test_a_sound_pair_is_wired_right(answers, tmp_path):
    verdict = verdict_of(SMALL, answers, tmp_path)
    assert verdict.wired_right and verdict.summary.startswith("wired right: accept length ")
    assert verdict.agreement == 1.0


def test_a_server_that_accepts_less_is_wired_wrong(answers, tmp_path):
    verdict = verdict_of(SMALL, answers, tmp_path, served=Measured(100, 80, (1,) * 16))
    assert not verdict.wired_right
    assert verdict.summary.startswith("wired wrong: served with accept length 1.25, the reference gets ")


@pytest.mark.parametrize(
    ("own", "draft", "named"),
    [
        ({"target_layer_ids": [1, 3, 5, 7]}, {}, "target_layer_ids [0, 2, 4, 6]"),
        ({}, {"is_causal": True}, "is_causal false"),
    ],
)
def test_a_wrong_config_is_wired_wrong_and_the_right_one_named(own, draft, named, answers, tmp_path):
    verdict = verdict_of(Mistake("", "note", "", own=own, draft=draft), answers, tmp_path)
    assert not verdict.wired_right and verdict.miswired, verdict.summary
    assert named in verdict.summary and verdict.summary.startswith("wired wrong: ")


def test_wirings_that_are_tried(tmp_path):
    published = Mistake("", "note", "", own={"mask_token_id": 200}, folders=("Qwen3-8B", "Qwen3-8B-DFlash-b16"))
    folders = plant(published, tmp_path)
    case = check(*folders, Plan(), CPU).reading.case
    words = [wiring.words for wiring in wirings(case, ReferenceKind(folders[1]))]
    # Ids below the first layer are left out, and so is the published mask token, which this vocabulary lacks.
    assert words == ["target_layer_ids [1, 3, 5, 7]", "is_causal true", "mask_token_id 4"]


def test_a_draft_that_knows_nothing_is_weak(answers, tmp_path):
    untrained = tensors(lambda weights: weights | {"fc.weight": torch.zeros_like(weights["fc.weight"])})
    verdict = verdict_of(Mistake("", "note", "", edit=untrained), answers, tmp_path)
    assert verdict.summary.startswith("wired right, draft weak: ") and verdict.wired_right and verdict.weak


@pytest.mark.parametrize(
    ("asked", "folders", "modes"),
    [
        (None, ("Qwen3-8B", "Qwen3-8B-DFlash-b16"), ("off", "on")),
        ("on", ("Qwen3-8B", "Qwen3-8B-DFlash-b16"), ("on", "off")),
        (None, ("My-Target", "My-Draft"), ("on", "off")),
    ],
)
def test_both_thinking_modes_are_asked(asked, folders, modes, tmp_path):
    edit = lambda target, draft: write_text(target / "chat_template.jinja", THINKS)  # noqa: E731
    folders = plant(Mistake("", "note", "", folders=folders, edit=edit), tmp_path)
    assert _modes(check(*folders, Plan(thinking=asked), CPU).reading) == modes
    assert _modes(check(str(TARGET_DIR), str(DRAFT_DIR), Plan(), CPU).reading) == (None, None)


def test_a_mode_that_drafts_better_is_told():
    slow, fast = Measured(20, 10, (1,) * 16), Measured(60, 10, (1,) * 16)
    verdict = Verdict(slow, slow, other_mode=("off", fast))
    assert verdict.wired_right and verdict.summary == "wired right: accept length 2.00, and 6.00 with thinking off"
    assert verdict.as_dict()["other_thinking_mode"]["accept_length"] == 6.0
    assert not Verdict(fast, fast, other_mode=("off", slow)).wrong_mode


def test_figures():
    figures = measured([9, 7], [[3, 2], [0, 3]], block_size=4)
    assert figures.accept_length == 14 / 4
    assert figures.by_position == (0.75, 0.75, 0.5)
    assert Measured(0, 0, ()).accept_length == 0.0 and Measured(0, 0, ()).by_position == ()


def test_without_a_reference_the_published_figures_decide():
    good, bad = Measured(80, 10, (0,) * 16), Measured(30, 10, (0,) * 16)
    assert Verdict(good, no_reference="too large", published=(5.0, 9.0)).wired_right
    poor = Verdict(bad, no_reference="too large", published=(5.5, 9.0))
    assert not poor.wired_right and poor.summary.startswith("weak or wired wrong, which only the reference tells")


def test_a_run_goes_into_the_report(monkeypatch):
    verdict = Verdict(Measured(20, 10, (1,) * 16), no_reference="too large")
    report = check_and_run(check(str(TARGET_DIR), str(DRAFT_DIR), Plan(), CPU), Console(), lambda *_: verdict)
    assert report.exit_code == 0 and report.verdict is verdict
    monkeypatch.setenv("SGLANG_DFLASH_PLATFORM", "cpu")
    monkeypatch.setattr(check_module, "run", lambda *_: verdict)
    monkeypatch.setattr(check_module.check_and_run, "__defaults__", (lambda *_: verdict,))
    done = CliRunner().invoke(cli.app, ["check", "--run"])
    assert done.exit_code == 0 and "works: accept length 2.00" in done.output
    done = CliRunner().invoke(cli.app, ["check", str(TARGET_DIR), str(DRAFT_DIR), "--run", "--json"])
    assert json.loads(done.output[done.output.index("{\n") :])["run"]["served"]["accept_length"] == 2.0


def test_a_run_serves_as_advised():
    report = check(str(TARGET_DIR), str(DRAFT_DIR), Plan(block_size=8), CPU)
    assert served_flags(report.advice, CPU) == ("--speculative-num-draft-tokens", "8")
