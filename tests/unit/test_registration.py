"""Who gets to serve DFLASH, and what happens where the plug-in cannot be installed."""

import json
import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest
from launching import environment
from published_drafts import plain

from sglang_dflash.errors import DFlashError
from sglang_dflash.host.contract import SGLANG_VERSION
from sglang_dflash.host.model_api import get_parallel
from sglang_dflash.plugin import registration

TARGETS = {
    "plain": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 128,
        "max_position_embeddings": 256,
    },
    "recurrent": {
        "architectures": ["Qwen3NextForCausalLM"],
        "model_type": "qwen3_next",
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 128,
        "max_position_embeddings": 256,
        "full_attention_interval": 4,
    },
}
DRAFTS = {
    "plain": plain(hidden_size=64, vocab_size=128, num_target_layers=4),
    "other": plain(architectures=["LiLiCorrDraftModel"], hidden_size=64),
}
DFLASH = SimpleNamespace(is_dflash=lambda: True)
DRAFT_VARIANT = "draft variant LiLiCorr"
DP_ATTENTION = "data-parallel attention"


@pytest.fixture(autouse=True)
def sglangs_own_drafts(monkeypatch):
    """What is taken from SGLang's draft classes for a host comes back."""
    from sglang.srt.models import dflash

    monkeypatch.setattr(dflash, "_flashinfer_top_k", dflash._flashinfer_top_k)


@pytest.fixture
def server_args(tmp_path):
    """SGLang's own arguments for a target and a draft of the dictionaries above."""
    from sglang.srt.server_args import ServerArgs

    def make(target: str, draft: str):
        paths = []
        for name, config in (("target", TARGETS[target]), ("draft", DRAFTS[draft])):
            (tmp_path / name).mkdir()
            (tmp_path / name / "config.json").write_text(json.dumps(config))
            paths.append(str(tmp_path / name))
        return ServerArgs(model_path=paths[0], speculative_draft_model_path=paths[1])

    return make


def builtin(algorithm, server_args):
    return f"built-in for {algorithm}"


def test_another_algorithm_is_not_ours_to_choose(monkeypatch):
    monkeypatch.setenv("SGLANG_DFLASH_WORKER", "nonsense")
    eagle = SimpleNamespace(is_dflash=lambda: False)
    assert registration._create_worker(builtin, eagle, None) == f"built-in for {eagle}"


def test_the_switch_hands_dflash_back(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "sglang_dflash")
    monkeypatch.setenv("SGLANG_DFLASH_WORKER", "builtin")
    assert registration._create_worker(builtin, DFLASH, None) == f"built-in for {DFLASH}"
    assert "built-in worker: SGLANG_DFLASH_WORKER=builtin" in caplog.text


def test_a_misspelt_switch_is_an_error_not_a_default(monkeypatch):
    monkeypatch.setenv("SGLANG_DFLASH_WORKER", "bultin")
    with pytest.raises(DFlashError, match="^SGLANG_DFLASH_WORKER: is 'bultin'"):
        registration._create_worker(builtin, DFLASH, None)


@pytest.mark.parametrize(
    ("target", "draft", "attn_dp", "reason"),
    [
        ("plain", "other", False, DRAFT_VARIANT),
        ("plain", "plain", True, DP_ATTENTION),
    ],
)
def test_what_we_do_not_implement_runs_on_the_builtin_worker_and_the_log_says_why(
    monkeypatch, caplog, server_args, target, draft, attn_dp, reason
):
    caplog.set_level(logging.INFO, "sglang_dflash")
    monkeypatch.delenv("SGLANG_DFLASH_WORKER", raising=False)
    with get_parallel().override(attn_dp_enabled=attn_dp):
        worker = registration._create_worker(builtin, DFLASH, server_args(target, draft))
    assert worker == f"built-in for {DFLASH}"
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1 and f"DFLASH runs on SGLang's built-in worker: {reason}" in lines[0]


@pytest.mark.parametrize("target", TARGETS)
def test_a_plain_pair_runs_on_ours_and_the_log_has_both_versions(monkeypatch, caplog, server_args, tmp_path, target):
    caplog.set_level(logging.INFO, "sglang_dflash")
    monkeypatch.delenv("SGLANG_DFLASH_WORKER", raising=False)
    from sglang_dflash import __version__
    from sglang_dflash.engine.worker import DFlashWorker

    # SGLang publishes its settings in a scheduler only.
    monkeypatch.setattr("sglang_dflash.host.metrics_api.metrics_label", lambda: None)
    arguments = server_args(target, "plain")
    with get_parallel().override(attn_dp_enabled=False):
        assert registration._create_worker(builtin, DFLASH, arguments) is DFlashWorker
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 1
        assert f"sglang-dflash {__version__} on SGLang {SGLANG_VERSION}: DFLASH runs on" in lines[0]
        monkeypatch.setenv("SGLANG_DFLASH_COUNTS", str(tmp_path / "counts"))
        assert issubclass(registration._create_worker(builtin, DFLASH, arguments), DFlashWorker)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            DFlashError("sglang", "hooks did not land", "reinstall it"),
            "sglang: hooks did not land (reinstall",
        ),
        (RuntimeError("no such hook"), "could not be installed: RuntimeError: no such hook"),
    ],
)
def test_a_failing_installation_is_one_line_and_status_2(monkeypatch, capsys, error, line):
    def fail(_version):
        raise error

    monkeypatch.setattr(registration, "_install", fail)
    with pytest.raises(SystemExit) as caught:
        registration.install()
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith(f"error: sglang-dflash: {line}")
    assert printed.err.count("\n") == 1 and printed.err.endswith("\n")


# SGLang logs and swallows what a plug-in raises; a process must end all the same.
BROKEN = """
from sglang.srt.plugins import load_plugins
from sglang_dflash.plugin import arguments
arguments.FROM_CLI_ARGS = "sglang.srt.server_args.ServerArgs.moved_elsewhere"
load_plugins()
print("serving with the built-in worker")
"""


def test_sglang_does_not_get_to_swallow_it():
    run = subprocess.run([sys.executable, "-c", BROKEN], env=environment(), capture_output=True, text=True, timeout=600)
    assert run.returncode == 2 and "serving" not in run.stdout
    lines = [line for line in run.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and "hooks did not land on sglang.srt.server_args.ServerArgs.moved_elsewhere" in lines[0]


def test_rows_of_the_slot_table_hold_a_full_requests_reserve(monkeypatch):
    from sglang.srt.mem_cache import allocation_sizing

    monkeypatch.setattr(allocation_sizing, "get_alloc_reserve_per_decode", lambda: 32)
    monkeypatch.setattr(allocation_sizing, "get_alloc_page_size", lambda: 4)
    assert registration._row_headroom(lambda: 5) == 36
    assert registration._row_headroom(lambda: 50) == 50
