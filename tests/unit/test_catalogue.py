"""The catalogue, the scripts and pages made from it, and its commands through SGLang's own parser."""

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest
from launching import launch
from typer.testing import CliRunner

from sglang_dflash import cli
from sglang_dflash.checkpoints.catalogue import GENERATIONS, load_catalogue
from sglang_dflash.checkpoints.catalogue.__main__ import stale, texts
from sglang_dflash.checkpoints.catalogue.command import command, generation_of
from sglang_dflash.errors import DFlashError

ROOT = Path(__file__).parents[2]
CATALOGUE = load_catalogue()
SERVED = [entry for entry in CATALOGUE if entry.served]
CAPABILITIES = {"sm80": "8.6", "sm90": "9.0", "sm100": "10.0", "sm120": "12.0"}
# Models of the tables that z-lab and others publish, by the names used there.
PUBLISHED = """Kimi-K2.5 Qwen3.5-4B Qwen3.5-9B Qwen3.5-27B Qwen3.5-35B-A3B Qwen3.5-122B-A10B Qwen3.5-397B-A17B
Qwen3.6-27B Qwen3.6-35B-A3B Qwen3-Coder-Next Qwen3-Coder-30B-A3B gpt-oss-20b gpt-oss-120b Qwen3-4B Qwen3-8B
Llama-3.1-8B-Instruct gemma-4-26B-A4B-it gemma-4-31B-it MiniMax-M2.5 MiniMax-M2.7""".split()
ANNOUNCED_ONLY = ["GLM-5.1", "DeepSeek-V4-Flash", "DeepSeek-V4-Pro"]


def by_name(entry):
    return entry.name


def dry_run(name: str, *arguments: str, **environment: str) -> list[str]:
    """What a script would run, without the interpreter's path."""
    known = ("GPU", "MODEL", "DRAFT", "BLOCK_SIZE", "TP", "CONTEXT", "MEMORY", "PAGE_SIZE")
    clean = {key: value for key, value in os.environ.items() if key not in known}
    line = subprocess.run(
        ["bash", str(ROOT / "launch" / f"{name}.sh"), *arguments],
        env=clean | {"DRY_RUN": "1", **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return shlex.split(line)[1:]


@pytest.mark.parametrize("title", PUBLISHED)
def test_every_published_model_has_a_script(title):
    entry = CATALOGUE.find(title)
    assert entry.served and entry.draft.checkpoint
    assert os.access(ROOT / "launch" / f"{entry.name}.sh", os.X_OK)


@pytest.mark.parametrize("title", ANNOUNCED_ONLY)
def test_what_is_announced_only_is_listed_with_the_reason(title):
    assert len(CATALOGUE.find(title).unserved) > 10


def test_scripts_and_pages_agree_with_the_catalogue():
    different = [name for name, text in texts().items() if (ROOT / name).read_text() != text]
    assert different == [], "run: python -m sglang_dflash.checkpoints.catalogue"
    assert stale() == []


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("entry", SERVED, ids=by_name)
def test_a_script_runs_the_catalogues_command(entry, generation):
    assert (
        dry_run(entry.name, "--port", "7", GPU=CAPABILITIES[generation])
        == command(entry, generation, arguments=("--port", "7"))[1:]
    )


def test_a_script_is_overridden_by_the_environment():
    words = dry_run(
        "qwen3-coder-next",
        GPU="9.0",
        MODEL="/m",
        DRAFT="/d",
        BLOCK_SIZE="5",
        TP="2",
        CONTEXT="100",
        MEMORY="0.5",
        ATTENTION="a",
        DRAFT_ATTENTION="b",
        PAGE_SIZE="3",
        HOST="h",
        PORT="9",
    )
    expected = {
        "--model-path": "/m",
        "--speculative-draft-model-path": "/d",
        "--speculative-num-draft-tokens": "5",
        "--tp-size": "2",
        "--context-length": "100",
        "--mem-fraction-static": "0.5",
        "--attention-backend": "a",
        "--speculative-draft-attention-backend": "b",
        "--page-size": "3",
        "--host": "h",
        "--port": "9",
    }
    assert {flag: words[words.index(flag) + 1] for flag in expected} == expected


@pytest.fixture(scope="module")
def parsed():
    """Every entry's command on every generation, and every script's, through SGLang's parser."""
    cases = {(entry.name, generation): command(entry, generation) for entry in SERVED for generation in GENERATIONS}
    cases |= {(entry.name, "script"): ["", *dry_run(entry.name, GPU="9.0")] for entry in SERVED}
    return dict(zip(cases, launch([(words[3:], {}) for words in cases.values()], resolve=False), strict=True))


@pytest.mark.parametrize("entry", SERVED, ids=by_name)
def test_sglangs_parser_accepts_every_command(parsed, entry):
    for generation in (*GENERATIONS, "script"):
        outcome = parsed[entry.name, generation]
        assert outcome.error is None
        assert outcome.log == [], "an old spelling"
        row = entry.attention.on("sm90" if generation == "script" else generation)
        expected = {
            "model_path": entry.checkpoint,
            "speculative_algorithm": "DFLASH",
            "speculative_draft_model_path": entry.draft.checkpoint,
            "speculative_num_draft_tokens": entry.block_size,
            "attention_backend": row.target or None,
            "speculative_draft_attention_backend": row.draft or None,
            "page_size": row.page,
            "mamba_radix_cache_strategy": entry.mamba or "auto",
            "tp_size": entry.tp,
            "mem_fraction_static": entry.memory_fraction,
            "context_length": entry.context_length,
        }
        assert {field: outcome.fields[field] for field in expected} == expected


@pytest.mark.parametrize("entry", list(CATALOGUE), ids=by_name)
def test_facts_fit_together(entry):
    assert entry.confidence in "ABC" and len(entry.confidence) == 1
    assert entry.thinking in ("on", "off", "unknown")
    if entry.served:
        assert entry.hardware and entry.attention and entry.memory_fraction < 1 and entry.context_length
        rows = entry.attention.rows.values()
        assert len({(bool(row.target), bool(row.draft)) for row in rows}) == 1, "a flag is set on all GPUs or on none"
    draft = entry.draft
    if draft and draft.layer_ids:
        assert list(draft.layer_ids) == sorted(set(draft.layer_ids)) and draft.layer_ids[-1] < entry.layers
    if draft and draft.mask_token_id:
        assert draft.mask_token_id < entry.vocab_size
    if draft and draft.window:
        assert draft.window >= (draft.block_size or 0)
    for record in entry.published:
        assert all(len(values) == len(record.concurrency) for values in record.speedup.values())
        assert all(1 < value <= record.block_size for value in record.accept_length.values())


def test_names_are_unique():
    for attribute in ("name", "title", "checkpoint"):
        values = [getattr(entry, attribute) for entry in CATALOGUE]
        assert len(set(values)) == len(values)


@pytest.mark.parametrize("entry", [entry for entry in CATALOGUE if entry.architecture], ids=by_name)
def test_targets_have_a_class_in_the_installed_sglang(entry):
    import importlib.util

    root = Path(importlib.util.find_spec("sglang").submodule_search_locations[0]) / "srt" / "models"
    assert any(f"class {entry.architecture}(" in path.read_text() for path in root.glob("*.py"))


def test_published_ranges_are_those_of_the_served_block():
    entry = CATALOGUE.find("Qwen3.5-27B")
    assert entry.block_size == 16 and entry.accept_length == (5.47, 9.18) and entry.speedup == (3.0, 5.2)


def test_entries_are_found_by_checkpoint_and_folder(tmp_path):
    assert CATALOGUE.of_target("qwen/qwen3-8b").name == "qwen3-8b"
    assert CATALOGUE.of_target("someone/Qwen3-8B") is None
    assert CATALOGUE.of_draft("incoai/Qwen3.8-27B-DFlash2").name == "qwen3.8-27b"
    folder = tmp_path / "Qwen3-8B-DFlash-b16"
    folder.mkdir()
    assert CATALOGUE.of_draft(str(folder)).name == "qwen3-8b"
    snapshot = tmp_path / "models--Qwen--Qwen3-4B" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    assert CATALOGUE.of_target(str(snapshot)).name == "qwen3-4b"


def test_generations():
    assert [generation_of(text) for text in ("8.9", "9.0", "10.3", "12.1", "7.0", "")] == [*GENERATIONS, None, None]


def test_models_as_table_and_as_json():
    table = CliRunner().invoke(cli.app, ["models"])
    assert table.exit_code == 0
    assert all(entry.name in table.output for entry in CATALOGUE)
    rows = json.loads(CliRunner().invoke(cli.app, ["models", "--json"]).output)
    assert [row["name"] for row in rows] == [entry.name for entry in CATALOGUE]
    assert rows[1]["draft"]["layer_ids"] == [1, 9, 17, 25, 33] and rows[1]["script"] == "launch/qwen3-8b.sh"


def test_launch_prints_the_command():
    printed = CliRunner().invoke(
        cli.app, ["launch", "Qwen/Qwen3.5-27B", "--gpu", "10.0", "--port", "7", "--page-size", "32"]
    )
    words = shlex.split(printed.output)
    assert words[1:] == command(CATALOGUE.find("qwen3.5-27b"), "sm100", port=7, arguments=["--page-size", "32"])[1:]
    with_environment = CliRunner().invoke(cli.app, ["launch", "qwen3.5-397b-a17b"]).output
    assert with_environment.startswith("SGLANG_ENABLE_OVERLAP_PLAN_STREAM=1 ")


def test_launch_runs_the_command(monkeypatch):
    ran = []
    monkeypatch.setattr(os, "execve", lambda *arguments: ran.append(arguments))
    CliRunner().invoke(cli.app, ["launch", "qwen3.5-397b-a17b", "--run"])
    [(program, words, environment)] = ran
    assert program == words[0] and environment["SGLANG_ENABLE_OVERLAP_PLAN_STREAM"] == "1" and environment["PATH"]


@pytest.mark.parametrize(
    ("words", "message"),
    [("glm-5.1", "GLM-5.1 cannot be served: no draft is published"), ("qwen3-8", "did you mean qwen3-8b")],
)
def test_launch_says_what_is_wrong(words, message):
    error = CliRunner().invoke(cli.app, ["launch", words]).exception
    assert isinstance(error, DFlashError) and message in str(error)
