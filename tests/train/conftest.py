"""Tiny random networks shared by the training tests."""

import json

import pytest
import torch
from safetensors.torch import save_file

from sglang_dflash.tools.pair.tokenizer import build_tokenizer, save_tokenizer
from sglang_dflash.tools.train.model import Shape, TinyQwen3
from sglang_dflash.tools.train.networks import target_config


def scramble(module, seed=0, scale=0.3):
    """Random values everywhere, norms included, so that nothing cancels by chance."""
    generator = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        p.data.copy_(torch.randn(p.shape, generator=generator) * scale + (1.0 if p.ndim == 1 else 0.0))


def small_shape(vocab, layers=4):
    return Shape(vocab, 32, layers, 4, 2, 8, 48)


@pytest.fixture(scope="session")
def tiny_target(tmp_path_factory):
    """A random Qwen3 folder with the embedded pair's tokenizer."""
    folder = tmp_path_factory.mktemp("target")
    torch.manual_seed(0)
    model = TinyQwen3(small_shape(build_tokenizer().get_vocab_size()))
    scramble(model)
    save_file(dict(model.state_dict()), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(target_config(model.shape)))
    save_tokenizer(folder)
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
