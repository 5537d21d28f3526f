"""Weights packed for a CPU on running servers: answers are the transformers library's, and updates are followed."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from pushes import Trainer, weights
from safetensors.torch import save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from sglang_dflash.checkpoints.checks.names import expected_tensors
from sglang_dflash.checkpoints.config import parse_draft_config
from sglang_dflash.tools.pair import TARGET_DIR
from sglang_dflash.tools.serve import ServerSpec

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
TOKENS, BLOCK, VOCAB, HIDDEN = 12, 4, 896, 512
SIZES = dict(
    vocab_size=VOCAB,
    hidden_size=HIDDEN,
    intermediate_size=HIDDEN,
    num_hidden_layers=2,
    num_attention_heads=8,
    num_key_value_heads=2,
    head_dim=64,
    rms_norm_eps=1e-6,
    max_position_embeddings=512,
    rope_theta=10000.0,
)
PROMPTS = [list(range(first, first + 5 + first % 7)) for first in (20, 90, 170, 333)]


LLAMA = LlamaForCausalLM, LlamaConfig(**SIZES, attention_bias=True, tie_word_embeddings=True, eos_token_id=None)
# SGLang's Mistral hands out no hidden states, so it is decoded plainly.
OTHERS = {
    "plain": (MistralForCausalLM, MistralConfig(**SIZES, sliding_window=None, eos_token_id=None)),
    "dflash": (Qwen2ForCausalLM, Qwen2Config(**SIZES, tie_word_embeddings=True, eos_token_id=None)),
}


class Target:
    """A random model whose matrices are large enough to be packed, and what it answers."""

    def __init__(self, seed: int, folder: Path, kind=LLAMA):
        torch.manual_seed(seed)
        model_class, config = kind
        self.model = model_class(config).eval()
        with torch.no_grad():
            for parameter in self.model.parameters():
                noise = torch.randn_like(parameter)
                wide = parameter.ndim > 1
                parameter.copy_(noise * 2 / parameter.shape[-1] ** 0.5 if wide else parameter + 0.2 * noise)
        self.folder = str(folder)
        self.model.save_pretrained(folder)
        for name in TOKENIZER_FILES:
            shutil.copy(TARGET_DIR / name, folder / name)

    @torch.no_grad()
    def answers(self) -> list[tuple[int, ...]]:
        produced = []
        for prompt in PROMPTS:
            ids = list(prompt)
            for _ in range(TOKENS):
                ids.append(int(self.model(torch.tensor([ids])).logits[0, -1].argmax()))
            produced.append(tuple(ids[len(prompt) :]))
        return produced


def random_draft(folder: Path) -> str:
    config = SIZES | {
        "architectures": ["DFlashDraftModel"],
        "model_type": "qwen3",
        "num_hidden_layers": 1,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": False,
        "dtype": "float32",
        "block_size": BLOCK,
        "num_target_layers": SIZES["num_hidden_layers"],
        "dflash_config": {"mask_token_id": 5, "target_layer_ids": [0, 1]},
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(3)
    shapes = expected_tensors(parse_draft_config(config))
    tensors = {name: 0.05 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    return str(folder)


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    root = tmp_path_factory.mktemp("targets")
    return Target(0, root / "one"), Target(1, root / "other")


@pytest.fixture(scope="module", params=["plain", "builtin", "dflash"])
def server(request, servers, targets, tmp_path_factory):
    draft = None if request.param == "plain" else random_draft(tmp_path_factory.mktemp("drafts") / "draft")
    spec = ServerSpec(targets[0].folder, draft, request.param, exact=True)
    yield servers.get(spec)
    servers.stop(spec)


def answers(server) -> list[tuple[int, ...]]:
    sampling = {"temperature": 0.0, "max_new_tokens": TOKENS, "ignore_eos": True}
    together = server.client.generate_many(PROMPTS, len(PROMPTS), sampling)
    alone = server.client.generate(PROMPTS[0], sampling)
    server.client.flush_cache()
    assert alone.token_ids == together[0].token_ids
    return [answer.token_ids for answer in together]


def test_answers_follow_every_update(server, targets):
    one, other = targets
    log = Path(server.log_path).read_text()
    assert "weights packed" in log and "lean decoder pass over 2 layers" in log
    assert answers(server) == one.answers() != other.answers()
    trainer = Trainer(server.client.url)
    assert trainer.disk(other.folder).success
    assert answers(server) == other.answers()
    named = list(weights(one.folder))
    trainer.session([named[::2], named[1::2]], selector="target")
    assert answers(server) == one.answers()
    for request in ("release_memory_occupation", "resume_memory_occupation"):
        assert trainer.plain_post(request)
    assert answers(server) == one.answers()


@pytest.mark.parametrize("worker", OTHERS)
def test_other_models_with_a_lean_pass(worker, servers, tmp_path):
    target = Target(2, tmp_path / "target", OTHERS[worker])
    draft = random_draft(tmp_path / "draft") if worker == "dflash" else None
    spec = ServerSpec(target.folder, draft, worker, exact=True)
    server = servers.get(spec)
    log = Path(server.log_path).read_text()
    assert "weights packed" in log and "lean decoder pass over 2 layers" in log
    assert answers(server) == target.answers()
    servers.stop(spec)
