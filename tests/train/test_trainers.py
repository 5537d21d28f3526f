"""Both trainers run, save, resume, export, and refuse bad input with one clear line."""

import json

import pytest
import torch
from typer.testing import CliRunner

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.train import fastenv
from sglang_dflash.tools.train.cli import app
from sglang_dflash.tools.train.draft import DraftRun, DraftTrainer, mask_token
from sglang_dflash.tools.train.draft_io import load_draft
from sglang_dflash.tools.train.export import export_target
from sglang_dflash.tools.train.frozen import load_lean
from sglang_dflash.tools.train.loop import rate_at
from sglang_dflash.tools.train.runlog import load_checkpoint, save_checkpoint
from sglang_dflash.tools.train.target import TargetRun, TargetTrainer


def small_target(out):
    return TargetRun(out, minutes=1, layers=2, hidden=32, tokens=512)


def test_target_learns_saves_resumes_and_exports(tmp_path):
    trainer = TargetTrainer(small_target(tmp_path / "run"))
    assert not trainer.resume()
    losses = [trainer.train_step() for _ in range(12)]
    assert losses[-1] < losses[0]
    save_checkpoint(tmp_path / "run", trainer.state())
    again = TargetTrainer(small_target(tmp_path / "run"))
    assert again.resume() and again.step == 12 and again.seen == trainer.seen
    torch.testing.assert_close(trainer.train_step(), again.train_step())
    for name, value in trainer.network.state_dict().items():
        torch.testing.assert_close(value, again.network.state_dict()[name])
    export_target(tmp_path / "run", tmp_path / "hf")
    exported = load_lean(tmp_path / "hf").state_dict()
    saved = load_checkpoint(tmp_path / "run")["model"]
    assert all(torch.equal(exported[k], saved[k]) for k in saved)


def test_another_shape_does_not_resume(tmp_path):
    trainer = TargetTrainer(small_target(tmp_path))
    save_checkpoint(tmp_path, trainer.state())
    with pytest.raises(DFlashError, match="out:"):
        TargetTrainer(TargetRun(tmp_path, layers=3, hidden=32)).resume()


def test_start_from_given_weights(tmp_path):
    trainer = TargetTrainer(small_target(tmp_path / "a"))
    trainer.train_step()
    save_checkpoint(tmp_path / "a", trainer.state())
    export_target(tmp_path / "a", tmp_path / "hf")
    run = small_target(tmp_path / "b")
    run.start_from = tmp_path / "hf"
    again = TargetTrainer(run)
    for name, value in trainer.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name])
    with pytest.raises(DFlashError, match="start_from"):
        TargetTrainer(TargetRun(tmp_path / "c", layers=3, hidden=32, start_from=tmp_path / "hf"))


def test_export_without_a_run(tmp_path):
    with pytest.raises(DFlashError, match="train first"):
        export_target(tmp_path / "none", tmp_path / "hf")


def test_rate_rises_stays_and_falls():
    run = TargetRun(out=None, minutes=10)
    assert rate_at(run, 0, 0) < 0.05
    assert rate_at(run, 500, 200) == 1.0
    assert rate_at(run, 500, 600) == pytest.approx(run.final_lr)


def draft_run(target, out, **more):
    return DraftRun(out, target=str(target), minutes=1, layers=1, tap_count=2, anchors=4, tokens=256, **more)


def test_draft_on_the_generators(tmp_path, tiny_target, monkeypatch):
    from sglang_dflash.tools.train import draft_data

    monkeypatch.setattr(draft_data.BuiltinDocuments.__init__, "__defaults__", ((), 2, 8))
    monkeypatch.setattr(draft_data.BuiltinDocuments, "validation", lambda self, target, n: {})
    trainer = DraftTrainer(draft_run(tiny_target, tmp_path))
    for _ in range(3):
        trainer.train_step()
    trainer.save()
    again = DraftTrainer(draft_run(tiny_target, tmp_path))
    assert again.resume() and again.step == 3
    torch.testing.assert_close(trainer.train_step(), again.train_step())
    network, config = load_draft(tmp_path / "draft")
    assert config["dflash_config"] == {"mask_token_id": 4, "target_layer_ids": [0, 2]}
    assert config["architectures"] == ["DFlashDraftModel"] and network.shape.num_hidden_layers == 1


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """Another architecture, loaded through transformers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from sglang_dflash.tools.pair.tokenizer import save_tokenizer

    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.mark.parametrize("regenerate", [False, True])
def test_draft_on_any_causal_lm_from_texts_and_chats(tmp_path, llama, regenerate):
    chat = [
        {"role": "user", "content": "What is 2+3?"},
        {"role": "assistant", "content": "The answer is 5. " * 3},
    ]
    lines = [{"messages": chat}, {"text": "the river and the old boat " * 12}] * 4
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, lines)))
    trainer = DraftTrainer(draft_run(llama, tmp_path / "run", data=str(data), regenerate=regenerate, max_length=64))
    losses = [trainer.train_step() for _ in range(16)]
    assert sum(losses[-4:]) < sum(losses[:4])
    assert 1.0 <= trainer.check()["mean"] <= 16
    trainer.save()
    assert load_draft(tmp_path / "run" / "draft")[1]["num_target_layers"] == 4
    # Resumed in the middle of an epoch, it goes on with the documents that were to come.
    again = DraftTrainer(trainer.config)
    assert again.resume() and again.packer.drawn == trainer.packer.drawn > len(trainer.data.documents)
    torch.testing.assert_close(trainer.train_step(), again.train_step())
    assert again.packer.pools == trainer.packer.pools


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "line 1 is not JSON"), ('{"a": 1}', "neither 'text' nor 'messages'"), ("", "0 usable documents")],
)
def test_bad_data_is_named(tmp_path, llama, text, message):
    data = tmp_path / "data.jsonl"
    data.write_text(text)
    with pytest.raises(DFlashError, match=message):
        DraftTrainer(draft_run(llama, tmp_path / "run", data=str(data)))


def test_mask_token_must_be_a_real_id():
    class Bare:
        mask_token_id = None

    with pytest.raises(DFlashError, match="--mask-token-id"):
        mask_token(None, Bare, 100)
    with pytest.raises(DFlashError, match="outside"):
        mask_token(100, Bare, 100)


def test_cli_reports_one_line(tmp_path, monkeypatch, tiny_target):
    monkeypatch.setattr(fastenv, "restart_with_fast_malloc", lambda arguments, threads: None)
    result = CliRunner().invoke(app, ["draft", "--target", str(tiny_target), "--target-layer-ids", "0,x"])
    assert result.exit_code == 2 and "target_layer_ids" in result.output
    result = CliRunner().invoke(
        app,
        [
            "draft",
            "--target",
            str(tiny_target),
            "--data",
            str(tmp_path / "no.jsonl"),
            "--out",
            str(tmp_path),
            "--taps",
            "2",
        ],
    )
    assert result.exit_code == 2 and "does not exist" in result.output


def test_cli_eval_prints_and_writes(tmp_path, monkeypatch, tiny_target):
    monkeypatch.setattr(fastenv, "restart_with_fast_malloc", lambda arguments, threads: None)
    out = tmp_path / "result.json"
    arguments = [
        "eval",
        "--target",
        str(tiny_target),
        "--draft",
        "none",
        "--limit",
        "2",
        "--kinds",
        "words,table",
    ]
    result = CliRunner().invoke(app, [*arguments, "--json", str(out)])
    assert result.exit_code == 0, result.output
    assert [k["kind"] for k in json.loads(out.read_text())["kinds"]] == ["words", "table"]
