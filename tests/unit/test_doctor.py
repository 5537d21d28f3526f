"""``sglang-dflash check``: planted mistakes are named, sound pairs are left alone, figures are right."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from planted_mistakes import CPU, HOPPER, MISTAKES, Mistake, plant
from typer.testing import CliRunner

from sglang_dflash import cli
from sglang_dflash.checkpoints.catalogue import load_catalogue
from sglang_dflash.checkpoints.checks.case import Case, Plan
from sglang_dflash.checkpoints.checks.findings import ERROR, MEANINGS, NOTE, meanings
from sglang_dflash.checkpoints.checks.tokenizer_files import thinking_default
from sglang_dflash.checkpoints.checks.wiring import wiring_findings
from sglang_dflash.checkpoints.config import parse_draft_config
from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.doctor.advice import advise
from sglang_dflash.tools.doctor.check import check
from sglang_dflash.tools.pair import DRAFT_DIR, TARGET_DIR

PAIR = (str(TARGET_DIR), str(DRAFT_DIR))
RUNNER = CliRunner()


def label(mistake: Mistake) -> str:
    return f"{mistake.name}-{mistake.severity}-{mistake.field.replace(' ', '_')}"


@pytest.mark.parametrize("mistake", MISTAKES, ids=label)
def test_a_planted_mistake_is_named(mistake, tmp_path):
    report = check(*plant(mistake, tmp_path), mistake.plan, mistake.machine)
    found = [(f.name, f.severity, f.field) for f in report.findings]
    assert any(
        name == mistake.name and severity == mistake.severity and field.startswith(mistake.field)
        for name, severity, field in found
    ), found
    assert report.exit_code == (0 if all(severity == NOTE for _, severity, _ in found) else 1)
    for finding in report.findings:
        assert finding.what and finding.remedy and "\n" not in str(finding)


def test_every_finding_is_planted():
    assert {mistake.name for mistake in MISTAKES} == set(MEANINGS)


def test_the_embedded_pair_is_sound():
    report = check(*PAIR, Plan(), CPU)
    assert report.findings == () and report.exit_code == 0


def test_a_mistake_is_found_by_its_own_finding_alone(tmp_path):
    """Off-by-one layers are valid layers: nothing else may hide or repeat it."""
    mistake = next(m for m in MISTAKES if m.name == "layer-ids-off-by-one")
    report = check(*plant(mistake, tmp_path), Plan(), CPU)
    assert [finding.name for finding in report.findings] == ["layer-ids-off-by-one"]
    assert "above the usual [1, 2, 4, 5] by one" in report.findings[0].what


@pytest.mark.parametrize(
    "entry",
    [e for e in load_catalogue() if e.draft and e.draft.layer_ids and e.hidden_size],
    ids=lambda entry: entry.name,
)
def test_published_layer_ids_are_not_taken_for_mistakes(entry):
    """With the target known and, as for a fine-tune of it, unknown; one above or below is told."""
    target = {"hidden_size": entry.hidden_size, "vocab_size": entry.vocab_size, "num_hidden_layers": entry.layers}

    def names(ids, known):
        raw = {
            "architectures": ["DFlashDraftModel"],
            "hidden_size": entry.hidden_size,
            "num_attention_heads": 8,
            "num_hidden_layers": 5,
            "intermediate_size": 64,
            "head_dim": 64,
            "block_size": 16,
            "dflash_config": {"target_layer_ids": list(ids), "mask_token_id": 1},
        }
        case = Case(target, parse_draft_config(raw), raw, "", target_entry=known, draft_entry=entry)
        return [finding.name for finding in wiring_findings(case)]

    ids = entry.draft.layer_ids
    for known in (entry, None):
        assert "layer-ids-off-by-one" not in names(ids, known)
    for shift in (1, -1):
        if ids[0] + shift >= 0 and ids[-1] + shift < entry.layers:
            assert "layer-ids-off-by-one" in names([i + shift for i in ids], entry)


def test_unreadable_checkpoints_name_the_field(tmp_path):
    (tmp_path / "empty").mkdir()
    for target, draft, field in (
        ("/no/folder", PAIR[1], "TARGET"),
        (PAIR[0], str(tmp_path / "empty"), "DRAFT"),
        (PAIR[0], "z-lab/never-fetched", "DRAFT"),
    ):
        with pytest.raises(DFlashError) as caught:
            check(target, draft, Plan(), CPU)
        assert caught.value.field == field


def test_the_hubs_cache_is_read_and_a_part_of_a_checkpoint_is_enough(tmp_path, monkeypatch):
    """Configs and tokenizer were fetched, of the weights only the index."""
    for name, source in (("Qwen/Qwen3-8B", TARGET_DIR), ("z-lab/Qwen3-8B-DFlash-b16", DRAFT_DIR)):
        folder = tmp_path / f"models--{name.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("abc")
        snapshot = folder / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        for path in source.iterdir():
            if path.suffix != ".safetensors":
                (snapshot / path.name).symlink_to(path)
        index = {"metadata": {"total_size": 5 << 30}, "weight_map": {"fc.weight": "model-1-of-2.safetensors"}}
        (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    report = check("Qwen/Qwen3-8B", "z-lab/Qwen3-8B-DFlash-b16", Plan(), CPU)
    assert report.reading.case.target_entry.name == report.reading.case.draft_entry.name == "qwen3-8b"
    assert report.reading.target_bytes == 5 << 30 and report.reading.estimated == ()
    assert [f.name for f in report.findings] == ["draft-context-short"]  # the catalogue serves 40960 tokens


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ([], 0),
        ([*PAIR, "--block-size", "32"], 1),
        (["/no/folder", PAIR[1]], 2),
        ([PAIR[0]], 2),
        ([*PAIR, "--kv-dtype", "int3"], 2),
    ],
)
def test_exit_status(words, status, monkeypatch, capsys):
    monkeypatch.setenv("SGLANG_DFLASH_PLATFORM", "cpu")
    monkeypatch.setattr("sys.argv", ["sglang-dflash", "check", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == status
    if status == 2:
        assert capsys.readouterr().err.startswith("error: ")


def test_report_as_json():
    arguments = [
        "check",
        *PAIR,
        "--json",
        "--gpu",
        "9.0",
        "--gpu-memory",
        "80",
        "--dtype",
        "bfloat16",
        "--context",
        "1000",
    ]
    done = RUNNER.invoke(cli.app, arguments)
    report = json.loads(done.output[done.output.index("{") :])
    assert done.exit_code == report["exit_code"] == 0 and report["fits"] and report["findings"] == []
    assert report["serve_with"]["--attention-backend"] == "fa3"
    assert report["serve_with"]["--speculative-num-draft-tokens"] == "16"
    parts = report["memory"]["parts"]
    # 8 requests of 1000 tokens and the block under way; 8 layers, 2 heads, 32 channels, K and V, 2 bytes.
    assert parts["target KV"] == 8 * 1016 * 8 * 2 * 32 * 2 * 2
    assert parts["draft KV"] == 8 * 1016 * 2 * 2 * 32 * 2 * 2
    assert parts["target weights"] == (TARGET_DIR / "model.safetensors").stat().st_size
    assert sum(parts.values()) == report["memory"]["total"]


def test_report_as_text():
    done = RUNNER.invoke(cli.app, ["check", *PAIR, "--block-size", "15", "--gpu", "9.0"])
    assert done.exit_code == 1
    for words in ("block-size-counts-otherwise", "fp16", "target KV", "serve with", "--attention-backend fa3"):
        assert words in done.output
    assert done.output.strip().endswith("does not fit as it is (2 warnings)")


def test_errors_come_first_in_the_report(tmp_path):
    folders = plant(Mistake("", ERROR, "", own={"mask_token_id": 900}, draft={"is_causal": True}), tmp_path)
    output = RUNNER.invoke(cli.app, ["check", *folders]).output
    assert output.index("mask-token-outside") < output.index("causal-full-attention")


def test_advice_takes_the_catalogues_backends_for_the_gpu(tmp_path):
    folders = plant(Mistake("", NOTE, "", folders=("Qwen3-8B", "Qwen3-8B-DFlash-b16")), tmp_path)
    from sglang_dflash.tools.doctor.machine import simulated

    advised = dict(check(*folders, Plan(), simulated("10.0", 180, 1)).advice.flags)
    assert advised["--attention-backend"] == "trtllm_mha"
    assert advised["--speculative-draft-attention-backend"] == "fa4"
    assert advised["--page-size"] == "64" and advised["--mem-fraction-static"] == "0.75"
    assert advised["--speculative-draft-window-size"] == "2048"  # half of the positions that this draft knows
    report = check(*folders, Plan(), simulated("10.0", 180, 1))
    reworded = [replace(finding, remedy="say it in other words") for finding in report.findings]
    assert advise(report.reading.case, report.budget, report.machine, reworded) == report.advice
    assert "--attention-backend" not in dict(check(*folders, Plan(), CPU).advice.flags)
    assert check(*folders, Plan(), HOPPER).advice.source == "catalogue, qwen3-8b (confidence A)"


@pytest.mark.parametrize(
    ("template", "mode"),
    [
        ("{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}x", "on"),
        ("{% if enable_thinking %}<think>{% endif %}x", "off"),
        ("{{ messages[0].content }}", None),
        ("{% for m in messages %}{% if enable_thinking %}t{% endif %}{% break %}{% endfor %}", "off"),
        ("{{ raise_exception('no tools') }}", None),
        ("{% if %}", None),
    ],
)
def test_thinking_default(template, mode):
    assert thinking_default(template) == mode


def test_the_page_lists_every_finding():
    page = (Path(__file__).parents[2] / "docs" / "check.md").read_text()
    assert meanings() in page
    assert not re.search(r"doctor` command", page)
