"""The target recipe on architectures of transformers, and runs that are counted in steps."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3_5TextConfig, Qwen3MoeConfig

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.pair.tokenizer import PAD, build_tokenizer, encode_chat
from sglang_dflash.tools.train.draft import DraftRun, DraftTrainer
from sglang_dflash.tools.train.export import export_target
from sglang_dflash.tools.train.loop import rate_at, split_parameters
from sglang_dflash.tools.train.measure import exact_share
from sglang_dflash.tools.train.networks import HubNetwork
from sglang_dflash.tools.train.packing import RowBatcher
from sglang_dflash.tools.train.target import TargetRun, TargetTrainer

SIZES = dict(
    vocab_size=896,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    intermediate_size=48,
    max_position_embeddings=512,
    pad_token_id=0,
)
CONFIGS = {
    "llama": lambda: LlamaConfig(**SIZES),
    "experts": lambda: Qwen3MoeConfig(**SIZES, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2),
    "hybrid": lambda: Qwen3_5TextConfig(
        **SIZES,
        layer_types=["linear_attention", "full_attention", "linear_attention"],
        linear_num_key_heads=1,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        tie_word_embeddings=True,
    ),
}


@pytest.fixture(scope="module", params=CONFIGS)
def config(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / "config.json"
    path.write_text(json.dumps(CONFIGS[request.param]().to_dict()))
    return path


def run_of(config, out, **more):
    return TargetRun(out, config=config, kinds=("words", "refuse"), steps=8, tokens=256, warmup_steps=2, **more)


def test_learns_resumes_and_exports(config, tmp_path):
    trainer = TargetTrainer(run_of(config, tmp_path / "run"))
    losses = [trainer.train_step() for _ in range(6)]
    assert sum(losses[-2:]) < sum(losses[:2])
    trainer.save()
    again = TargetTrainer(run_of(config, tmp_path / "run"))
    assert again.resume() and again.step == 6
    torch.testing.assert_close(again.train_step(), trainer.train_step())
    trainer.run()
    assert trainer.step == 8
    export_target(tmp_path / "run", tmp_path / "hf", torch.bfloat16)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype="auto")
    assert loaded.dtype == torch.bfloat16 and loaded.config.eos_token_id == 3
    for name, value in trainer.network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value.bfloat16())


def test_a_draft_learns_from_it(config, tmp_path):
    trainer = TargetTrainer(run_of(config, tmp_path / "run"))
    trainer.save()
    export_target(tmp_path / "run", tmp_path / "hf")
    run = DraftRun(
        tmp_path / "draft",
        target=str(tmp_path / "hf"),
        kinds=("words", "refuse"),
        steps=4,
        layers=1,
        tap_count=2,
        anchors=4,
        tokens=256,
        check_prompts=1,
    )
    draft = DraftTrainer(run)
    draft.run()
    assert draft.step == 4 and (tmp_path / "draft" / "draft" / "model.safetensors").exists()
    # The gain of the final norm as it acts, however the target stores it.
    assert (draft.target.final_norm > 0.5).all()


def test_exact_share_counts_whole_answers(config):
    network = HubNetwork.read(config)
    tokenizer = build_tokenizer()
    documents = [encode_chat(tokenizer, [("Hello", "Yes.")]), encode_chat(tokenizer, [("Name a city", "Oslo")])]
    assert exact_share(network, documents, PAD) == 0.0


def test_rows_are_of_similar_length_and_none_waits_for_ever():
    lengths = [5, 90, 6, 88, 7, 8, 91, 5] * 40
    source = iter([([i] * n, [True] * n) for i, n in enumerate(lengths)])
    batcher = RowBatcher(source, 200, 0)
    seen = []
    for _ in range(20):
        batch = batcher.next_batch()
        seen += batch.ids[:, 0].tolist()
        assert batch.ids.numel() <= 200
        widths = (batch.doc >= 0).sum(1)
        assert widths.max() - widths.min() <= 10
    assert len(set(seen)) == len(seen) and set(range(40)) <= set(seen)


def test_matrices_and_vectors(config):
    matrices, vectors = split_parameters(HubNetwork.read(config).module)
    assert all(p.ndim in (2, 3) for p in matrices) and {p.ndim for p in vectors} >= {1, 2}


def test_steps_drive_the_rate():
    run = TargetRun(None, steps=100, warmup_steps=1)
    assert rate_at(run, 10, 1e9) == 1.0 and rate_at(run, 100, 0.0) == pytest.approx(run.final_lr)


def test_bad_kinds_and_configs(tmp_path):
    with pytest.raises(DFlashError, match="kinds: has 'wrods'"):
        TargetTrainer(TargetRun(tmp_path, kinds=("wrods",)))
    with pytest.raises(DFlashError, match="config:"):
        TargetTrainer(TargetRun(tmp_path, config=tmp_path / "none.json"))
    (tmp_path / "bad.json").write_text('{"model_type": "nothing of the sort"}')
    with pytest.raises(DFlashError, match="config:"):
        TargetTrainer(TargetRun(tmp_path, config=tmp_path / "bad.json"))
