"""Features on disk, drafts that begin as target layers, and a loss over frequent ids."""

import json

import pytest
import torch
import torch.nn.functional as F
from conftest import scramble
from typer.testing import CliRunner

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.train import fastenv
from sglang_dflash.tools.train.cli import app
from sglang_dflash.tools.train.cli_options import arguments_of
from sglang_dflash.tools.train.draft import DraftRun, DraftTrainer, open_tokenizer
from sglang_dflash.tools.train.draft_model import DraftNetwork
from sglang_dflash.tools.train.evaluate import evaluate_store
from sglang_dflash.tools.train.features import (
    FeatureStore,
    FeatureWriter,
    StoredTarget,
    document_of,
    read_records,
    write_features,
)
from sglang_dflash.tools.train.frozen import open_target
from sglang_dflash.tools.train.loss_head import FrequentHead, WholeHead
from sglang_dflash.tools.train.model import Shape
from sglang_dflash.tools.train.packing import collate
from sglang_dflash.tools.train.report import print_table
from sglang_dflash.tools.train.start_layers import begin_as_target_layers

TAPS = [0, 2]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A small Llama with the embedded pair's tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from sglang_dflash.tools.pair.tokenizer import save_tokenizer

    folder = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    scramble(model)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "chats.jsonl"
    lines = []
    for i in range(40):
        chat = [{"role": "user", "content": f"What is {i}+3?"}, {"role": "assistant", "content": "The answer is 5. "}]
        lines.append({"messages": chat, "kind": "sum" if i % 2 else "other", "greedy": i % 4 != 0})
    lines[0]["answer_ids"] = [9, 9, 8, 7]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def store_of(target_folder, data, folder, share=0.3, stop=None, tokens=200):
    target = open_target(str(target_folder))
    records = read_records(data, open_tokenizer(str(target_folder)), 64, share)
    writer = FeatureWriter(folder, str(target_folder), TAPS, target.hidden_size)
    write_features(writer, target, records[:stop], tokens, lambda done, count: None)
    return target, records


def test_records_hold_out_prompts_and_keep_given_ids(llama, data):
    records = read_records(data, open_tokenizer(str(llama)), 64, 0.3)
    assert records[0]["ids"][records[0]["answer_from"] :] == [9, 9, 8, 7]
    held = [r for r in records if r["heldout"]]
    assert 0 < len(held) < len(records) and {r["kind"] for r in records} == {"sum", "other"}
    sampled = [r for r in read_records(data, open_tokenizer(str(llama)), 64, 1.0)]
    assert len(sampled) == 30 and all(r["heldout"] for r in sampled)
    everything = read_records(data, open_tokenizer(str(llama)), 64, 0.0)
    assert len(everything) == 40 and not any(r["heldout"] for r in everything)


def test_what_is_stored_is_what_the_target_gives(llama, data, tmp_path):
    target, records = store_of(llama, data, tmp_path)
    store = FeatureStore(tmp_path, 1)
    assert len(store.documents) + sum(map(len, store.heldout.values())) == len(records)
    stored = StoredTarget(target, store, "cpu")
    batch = collate([[document_of(r)] for r in records[3:6]], 64, 0)
    ours, theirs = stored.observe(batch, TAPS), target.observe(batch, TAPS)
    real = batch.doc >= 0
    torch.testing.assert_close(ours.features[real], theirs.features[real], rtol=0.005, atol=1e-5)  # bfloat16
    assert torch.equal(ours.best[real], theirs.best[real])
    one = stored.observe(batch, [2]).features
    assert torch.equal(one, ours.features[..., 32:])
    with pytest.raises(KeyError):
        stored.observe(collate([[([1, 2, 3], [True] * 3)]], 4, 0), TAPS)


def test_an_interrupted_pass_goes_on(llama, data, tmp_path):
    store_of(llama, data, tmp_path / "whole")
    store_of(llama, data, tmp_path / "cut", stop=7)
    for name in ("layer-2.bin", "best.bin"):  # what a crash leaves behind
        with (tmp_path / "cut" / name).open("ab") as f:
            f.write(b"half a document")
    with (tmp_path / "cut" / "documents.jsonl").open("a") as f:
        f.write('{"ids": [1,')
    store_of(llama, data, tmp_path / "cut")
    for path in (tmp_path / "whole").iterdir():
        if path.suffix == ".bin":
            whole = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
            cut = torch.frombuffer(bytearray((tmp_path / "cut" / path.name).read_bytes()), dtype=torch.uint8)
            assert whole.shape == cut.shape
            if path.name == "best.bin":
                assert torch.equal(whole, cut)
        else:
            assert path.read_bytes() == (tmp_path / "cut" / path.name).read_bytes()
    with pytest.raises(DFlashError, match="other layers"):
        FeatureWriter(tmp_path / "cut", str(llama), [0, 1], 32)
    (tmp_path / "cut" / "layer-0.bin").write_bytes(b"")
    with pytest.raises(DFlashError, match="shorter"):
        FeatureWriter(tmp_path / "cut", str(llama), TAPS, 32)


def run_of(llama, features, out, **more):
    return DraftRun(
        out, target=str(llama), data=str(features), minutes=1, layers=2, anchors=4, tokens=256, warmup_steps=2, **more
    )


def test_a_draft_learns_from_the_store_alone(llama, data, tmp_path, monkeypatch):
    store_of(llama, data, tmp_path / "f")
    run = run_of(
        llama,
        tmp_path / "f",
        tmp_path / "run",
        start_layers=[0, 3],
        loss_vocabulary=64,
        compute=torch.bfloat16,
        optimizer="adamw",
        check_prompts=2,
    )
    trainer = DraftTrainer(run)
    monkeypatch.setattr(type(trainer.target._target), "observe", None)  # no target pass from here on
    losses = [trainer.train_step() for _ in range(16)]
    assert sum(losses[-4:]) < sum(losses[:4])
    scores = trainer.check()
    assert set(scores) == {"mean", "sum", "other"} and 1 <= scores["mean"] <= 16
    trainer.save()
    results = evaluate_store(str(llama), tmp_path / "run" / "draft", tmp_path / "f", 2)
    assert {k["kind"]: k["prompts"] for k in results["kinds"]} == {"other": 2, "sum": 2}
    assert results["summary"]["mean_over_kinds"] == pytest.approx(scores["mean"], abs=0.3)  # bfloat16 there
    print_table(results)
    again = DraftTrainer(run)
    assert again.resume() and again.taps == TAPS
    assert [type(o) for o in again.optimizers] == [torch.optim.AdamW] * 2
    with pytest.raises(DFlashError, match="optimizer: is 'sgd'"):
        DraftTrainer(run_of(llama, tmp_path / "f", tmp_path / "bad", optimizer="sgd"))
    with pytest.raises(DFlashError, match="train features"):
        DraftTrainer(run_of(llama, tmp_path / "f", tmp_path / "other", target_layer_ids=[1]))


@torch.no_grad()
def test_a_draft_layer_is_the_target_layer_it_began_as(llama):
    """On context features alone its keys and values are the target's, and its MLP is."""
    target = open_target(str(llama))
    shape = Shape(1024, 32, 1, 4, 2, 8, 48)
    draft = DraftNetwork(shape, 2)
    draft.init_weights(0, target.final_norm)
    begin_as_target_layers(draft, target.weights(), [3], 0)
    source, layer = target.model.model.layers[3], draft.layers[0]
    x = torch.randn(5, 32)
    normed = F.rms_norm(x, (32,), None, 1e-6)
    torch.testing.assert_close(
        normed @ layer.self_attn.v_proj.weight.T, source.self_attn.v_proj(source.input_layernorm(x))
    )
    torch.testing.assert_close(layer.mlp(normed), source.mlp(source.post_attention_layernorm(x)))
    q = source.self_attn.q_proj(source.input_layernorm(torch.randn(500, 32)))
    usual = q.unflatten(-1, (4, 8)).pow(2).mean().sqrt()
    assert float(layer.self_attn.q_norm.weight.mean()) == pytest.approx(float(usual), rel=0.15)
    last_tap = draft.fc(torch.cat((torch.zeros(5, 32), x), -1))
    assert F.cosine_similarity(last_tap, x).min() > 0.9


@pytest.mark.parametrize("ids, message", [([0], "1 ids for 2 layers"), ([0, 9], "target layer 9 has no")])
def test_bad_start_layers(llama, ids, message):
    target = open_target(str(llama))
    draft = DraftNetwork(Shape(1024, 32, 2, 4, 2, 8, 48), 2)
    with pytest.raises(DFlashError, match=message):
        begin_as_target_layers(draft, target.weights(), ids, 0)
    wide = DraftNetwork(Shape(1024, 32, 2, 4, 2, 8, 64), 2)
    with pytest.raises(DFlashError, match="other sizes"):
        begin_as_target_layers(wide, target.weights(), [0, 1], 0)


def test_frequent_ids_are_counted_in_answers(llama):
    target = open_target(str(llama))
    documents = [([1, 5, 5, 7], [False, True, True, True]), ([1, 1, 5, 9], [False, False, True, True])]
    head = FrequentHead(target, documents, 2)
    kept = head.labels(torch.tensor([5, 1]))
    assert kept[0] >= 0 and kept[1] == -1 and head.share == pytest.approx(0.8)
    hidden = torch.randn(3, 32)
    where = int(head.labels(torch.tensor(5)))
    torch.testing.assert_close(head.logits(hidden)[:, where], WholeHead(target).logits(hidden)[:, 5])
    with pytest.raises(DFlashError, match="loss_vocabulary"):
        DraftTrainer(DraftRun(None, target=str(llama), tap_count=2, kinds=("words",), loss_vocabulary=8))


def test_cli_writes_features(llama, data, tmp_path, monkeypatch):
    monkeypatch.setattr(fastenv, "restart_with_fast_malloc", lambda arguments, threads: None)
    asked = ["features", "--target", str(llama), "--data", str(data), "--out", str(tmp_path / "f"), "--taps", "2"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0 and "40 documents" not in done.output.splitlines()[0], done.output
    assert FeatureStore(tmp_path / "f", 0).taps == [0, 2]
    done = CliRunner().invoke(app, [*asked, "--compute", "int8"])
    assert done.exit_code == 2 and "compute" in done.output


def test_a_restart_gets_the_same_options(tmp_path):
    given = {
        "out": tmp_path,
        "json_out": "x",
        "start_from": None,
        "regenerate": True,
        "dry": False,
        "loss_vocabulary": 9,
    }
    words = arguments_of("draft", given)
    assert words == ["draft", "--out", str(tmp_path), "--json", "x", "--regenerate", "--loss-vocabulary", "9"]
