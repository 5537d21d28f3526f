"""Networks that the target recipe can train: the lean Qwen3, or any causal LM of transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.pair.tokenizer import END, PAD
from sglang_dflash.tools.train.frozen import load_lean
from sglang_dflash.tools.train.model import Shape, TinyQwen3
from sglang_dflash.tools.train.packing import Batch, Document, Packer, RowBatcher, document_bias

MAX_LENGTH = 4096


def target_config(shape: Shape) -> dict:
    """config.json for ``Qwen3ForCausalLM``."""
    fields = {k: v for k, v in shape.as_dict().items() if k != "rope_theta"}
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        **fields,
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "max_position_embeddings": MAX_LENGTH,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "layer_types": ["full_attention"] * shape.num_hidden_layers,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": shape.num_hidden_layers,
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": None,
        "eos_token_id": END,
        "pad_token_id": PAD,
        "dtype": "float32",
    }


class Network(Protocol):
    """A trainable causal LM."""

    module: nn.Module

    def identity(self) -> dict: ...  # plain values that ``rebuild`` makes the same network from
    def init_weights(self, seed: int) -> None: ...
    def batcher(self, source: Iterator[Document], tokens: int, lengths: tuple[int, ...]) -> Packer | RowBatcher: ...
    def logits(self, batch: Batch, rows: Tensor, columns: Tensor) -> Tensor: ...  # [n, vocab] at these positions
    def start_from(self, folder: Path) -> None: ...  # weights of a checkpoint of the same sizes
    def write(self, folder: Path, dtype: torch.dtype) -> None: ...  # config.json and weights


class LeanNetwork:
    """``TinyQwen3``: several documents share a row, a mask keeps them apart."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.module = TinyQwen3(shape)

    def identity(self) -> dict:
        return self.shape.as_dict()

    def init_weights(self, seed: int) -> None:
        self.module.init_weights(seed)

    def batcher(self, source: Iterator[Document], tokens: int, lengths: tuple[int, ...]) -> Packer:
        return Packer(source, tokens, lengths, PAD)

    def logits(self, batch: Batch, rows: Tensor, columns: Tensor) -> Tensor:
        hidden = self.module(batch.ids, batch.positions, document_bias(batch.doc))
        return self.module.logits(hidden[rows, columns])

    def start_from(self, folder: Path) -> None:
        take_weights(self.module, load_lean(folder), folder)

    def write(self, folder: Path, dtype: torch.dtype) -> None:
        weights = {k: v.to(dtype).contiguous().cpu() for k, v in self.module.state_dict().items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        config = target_config(self.shape) | {"dtype": str(dtype).removeprefix("torch.")}
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


class HubNetwork:
    """What ``AutoModelForCausalLM`` builds from a config; one document per row, since a recurrent state has no mask."""

    def __init__(self, config: dict) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM

        self.config = config
        torch.manual_seed(0)
        self.module = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.float32)
        self.module.train()

    @classmethod
    def read(cls, path: Path) -> HubNetwork:
        """From a config.json, or the folder that holds one."""
        path = path / "config.json" if path.is_dir() else path
        try:
            return cls(json.loads(path.read_text()))
        except (OSError, ValueError) as error:
            raise DFlashError("config", f"{path}: {error}", "give a config.json that transformers knows") from error

    def identity(self) -> dict:
        return self.config

    def init_weights(self, seed: int) -> None:
        """Fan-in scaled matrices and small embeddings; everything else as transformers begins."""
        generator = torch.Generator().manual_seed(seed)
        for name, p in self.module.named_parameters():
            if "embed" in name or "lm_head" in name:
                nn.init.normal_(p, std=0.05, generator=generator)
            elif p.ndim in (2, 3) and "conv" not in name:
                nn.init.normal_(p, std=self.config["hidden_size"] ** -0.5, generator=generator)

    def batcher(self, source: Iterator[Document], tokens: int, lengths: tuple[int, ...]) -> RowBatcher:
        return RowBatcher(source, tokens, PAD)

    def logits(self, batch: Batch, rows: Tensor, columns: Tensor) -> Tensor:
        mask = (batch.doc >= 0).long()
        return self.module(batch.ids, attention_mask=mask, use_cache=False).logits[rows, columns]

    def start_from(self, folder: Path) -> None:
        take_weights(self.module, type(self.module).from_pretrained(folder, dtype=torch.float32), folder)

    def write(self, folder: Path, dtype: torch.dtype) -> None:
        self.module.to(dtype).save_pretrained(folder)
        written = json.loads((folder / "config.json").read_text())
        written |= {"eos_token_id": END, "pad_token_id": PAD, "bos_token_id": None}
        (folder / "config.json").write_text(json.dumps(written, indent=1) + "\n")


def take_weights(model: nn.Module, given: nn.Module, folder: Path) -> None:
    """Begin with trained weights instead of random ones; the sizes must agree."""
    try:
        model.load_state_dict(given.state_dict())
    except RuntimeError as error:
        raise DFlashError("start_from", f"{folder} holds other sizes", "train with the same sizes") from error


def rebuild(identity: dict) -> Network:
    """The network that ``identity`` describes, with untrained weights."""
    if "model_type" in identity:
        return HubNetwork(identity)
    return LeanNetwork(Shape(**identity))
