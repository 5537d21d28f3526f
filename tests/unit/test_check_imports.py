"""``sglang-dflash check`` without torch, transformers and SGLang: class defaults come from a table."""

import subprocess
import sys
from pathlib import Path

import pytest

from sglang_dflash.checkpoints.checks.case import Plan
from sglang_dflash.tools.doctor import class_defaults, reading
from sglang_dflash.tools.doctor.check import check
from sglang_dflash.tools.doctor.class_defaults import KINDS, READ, TABLE, filled, text
from sglang_dflash.tools.doctor.machine import simulated
from sglang_dflash.tools.pair import DRAFT_DIR, TARGET_DIR

COMPLETED = reading.completed
PAIRS = Path(__file__).parents[1] / "families" / "pairs"
# Read of the file itself: no class has a default for them that would be filled in.
OF_THE_FILE = {"architectures", "model_type", "text_config", "dtype", "torch_dtype", "quantization_config"}
HEAVY = ("torch", "transformers", "sglang", "huggingface_hub", "tokenizers", "matplotlib")
CHECK = f"""
import sys
sys.argv = ["sglang-dflash", "check", {str(TARGET_DIR)!r}, {str(DRAFT_DIR)!r}, *MORE]
from sglang_dflash import cli
try:
    cli.main()
except SystemExit as stop:
    print("status", stop.code)
print([name for name in {HEAVY!r} if name in sys.modules])
"""


@pytest.mark.parametrize("more", [["--gpu", "9.0"], ["--json"]], ids=" ".join)
def test_a_check_imports_nothing_heavy(more):
    done = subprocess.run(
        [sys.executable, "-c", CHECK.replace("MORE", repr(more))],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(filter(None, sys.path)), "SGLANG_DFLASH_PLATFORM": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
    assert "status" in done.stdout and "serve" in done.stdout


def test_the_table_is_made_from_transformers():
    assert TABLE.read_text() == text(), "run: python -m sglang_dflash.tools.doctor.class_defaults"


def by_transformers(monkeypatch, config: dict) -> dict:
    with monkeypatch.context() as patch:
        patch.setattr(reading, "filled", lambda _: None)
        return COMPLETED(config)


def told(config: dict) -> dict:
    """The fields that are read; layers that are not named are full ones."""
    fields = {name: config[name] for name in READ if config.get(name) is not None}
    if set(fields.get("layer_types") or ()) == {"full_attention"}:
        del fields["layer_types"]
    return fields


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("changes", class_defaults._PROBES, ids=str)
def test_a_file_without_defaults_is_filled_as_by_transformers(monkeypatch, kind, changes):
    file = {"model_type": kind, "architectures": ["A"], **changes}
    row = class_defaults._table()[kind]
    whole = by_transformers(monkeypatch, file)
    assert (filled(file) is None) is bool(set(row["computed"]) - set(file))
    # A field of two names stands in the file under the class's own.
    file |= {name: whole[name] for name in row["computed"] if name in whole}
    if not set(row["computed"]) - set(file):
        assert told(filled(file)) == told(by_transformers(monkeypatch, file))
        based = filled(file | {"rope_theta": 5.0})
        assert based is None or set(reading_bases(based)) == {5.0}


def reading_bases(config: dict) -> list[float]:
    from sglang_dflash.checkpoints.checks.wiring import _bases

    return list(_bases(config))


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "nobody"},
        {"model_type": "qwen3", "use_sliding_window": True},
        {"model_type": "qwen3_5", "text_config": {"model_type": "qwen3_5_text"}},
        {"model_type": "nemotron_h", "hybrid_override_pattern": "M-M*-"},
        {"model_type": "gpt_oss"},
    ],
)
def test_what_the_table_does_not_know_is_left_to_transformers(config):
    assert filled(config) is None


class Asked(dict):
    """Notes which of its fields are asked for."""

    names: set[str] = set()

    def get(self, name, default=None):
        self.names.add(name)
        return super().get(name, default)

    def __getitem__(self, name):
        self.names.add(name)
        return super().__getitem__(name)


@pytest.mark.parametrize("pair", [None, *sorted(path.name for path in PAIRS.iterdir() if path.is_dir())])
def test_every_field_that_is_read_is_in_the_list(monkeypatch, pair):
    target, draft = (TARGET_DIR, DRAFT_DIR) if pair is None else (PAIRS / pair / "target", PAIRS / pair / "draft")
    monkeypatch.setattr(Asked, "names", set())

    def completed(config):
        whole = by_transformers(monkeypatch, config)
        return Asked({**whole, **({"text_config": Asked(whole["text_config"])} if whole.get("text_config") else {})})

    monkeypatch.setattr(reading, "completed", completed)
    check(str(target), str(draft), Plan(), simulated("9.0", 80, 1))
    assert Asked.names and Asked.names - set(READ) - OF_THE_FILE == set()
