"""Frozen targets behind one small interface: the lean Qwen3, or any Hugging Face causal LM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.train.decode import greedy
from sglang_dflash.tools.train.model import Shape, TinyQwen3
from sglang_dflash.tools.train.packing import Batch, document_bias


class Seen(NamedTuple):
    """What one target pass over a batch yields."""

    features: Tensor  # [rows, length, taps * hidden], outputs of the tapped layers
    best: Tensor  # [rows, length] int64, greedy choice for the next position


class FrozenTarget(Protocol):
    """What draft training needs of a target."""

    hidden_size: int
    num_layers: int
    packs: bool  # may several documents share a row?
    final_norm: Tensor
    config: dict

    def observe(self, batch: Batch, taps: list[int]) -> Seen: ...
    def embed(self, ids: Tensor) -> Tensor: ...
    def head(self, hidden: Tensor) -> Tensor: ...
    def head_rows(self, ids: Tensor) -> Tensor: ...  # [n, hidden], the head's weights of these ids
    def weights(self) -> dict[str, Tensor]: ...  # by their names in the checkpoint
    def generate(self, prompts: list[list[int]], end: int, max_new: int) -> list[list[int]]: ...


class LeanTarget:
    """The embedded target, or any plain Qwen3 with tied embeddings."""

    packs = True

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.config = json.loads((folder / "config.json").read_text())
        self.model = load_lean(folder).to(device).requires_grad_(False)
        shape = self.model.shape
        self.hidden_size, self.num_layers = shape.hidden_size, shape.num_hidden_layers
        self.final_norm = self.model.model.norm.weight

    @torch.no_grad()
    def observe(self, batch: Batch, taps: list[int]) -> Seen:
        outputs: list[Tensor] = []
        hidden = self.model(batch.ids, batch.positions, document_bias(batch.doc), taps=outputs)
        best = self.model.logits(hidden).argmax(-1)
        return Seen(torch.cat([outputs[i] for i in taps], -1), best)

    def embed(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.model.model.embed_tokens.weight)

    def head(self, hidden: Tensor) -> Tensor:
        return self.model.logits(hidden)

    def head_rows(self, ids: Tensor) -> Tensor:
        return self.model.model.embed_tokens.weight[ids]

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def generate(self, prompts: list[list[int]], end: int, max_new: int) -> list[list[int]]:
        return greedy(self.model, prompts, end, max_new)


class HubTarget:
    """Any causal LM that transformers loads; one document per row, right-padded."""

    packs = False

    def __init__(self, name: str, device: str = "cpu") -> None:
        from transformers import AutoModelForCausalLM

        dtype = torch.float32 if device == "cpu" else "auto"
        self.model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype).to(device).requires_grad_(False)
        self.model.eval()
        text = self.model.config.get_text_config()
        self.config = text.to_dict()
        self.hidden_size, self.num_layers = text.hidden_size, text.num_hidden_layers
        trunk = self.model.get_decoder() if hasattr(self.model, "get_decoder") else self.model.base_model
        norm = next((getattr(trunk, n) for n in ("norm", "norm_f") if hasattr(trunk, n)), None)
        if norm is None or norm.weight.shape != (self.hidden_size,):
            raise DFlashError("target", f"{name} has no final norm of {self.hidden_size} gains", "use another target")
        # Some norms store their gain less one; what they do to ones is the gain in either form.
        self.final_norm = norm(torch.ones(1, self.hidden_size, device=device, dtype=self.model.dtype))[0].float()

    @torch.no_grad()
    def observe(self, batch: Batch, taps: list[int]) -> Seen:
        if batch.doc.max() > 0:
            raise DFlashError("batch", "this target takes one document per row", "pack with rows of one document")
        out = self.model(batch.ids, attention_mask=(batch.doc >= 0).long(), output_hidden_states=True)
        # hidden_states[0] is the embedding, so layer i's output is entry i + 1.
        features = torch.cat([out.hidden_states[i + 1] for i in taps], -1)
        return Seen(features.float(), out.logits.argmax(-1))

    def embed(self, ids: Tensor) -> Tensor:
        return self.model.get_input_embeddings()(ids).float()

    def head(self, hidden: Tensor) -> Tensor:
        return self.model.get_output_embeddings()(hidden.to(self.model.dtype)).float()

    def head_rows(self, ids: Tensor) -> Tensor:
        return self.model.get_output_embeddings().weight[ids].float()

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    @torch.no_grad()
    def generate(self, prompts: list[list[int]], end: int, max_new: int) -> list[list[int]]:
        answers = []
        for prompt in prompts:
            ids = torch.tensor([prompt], device=self.model.device)
            out = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=max_new,
                eos_token_id=end,
                pad_token_id=end,
            )
            answers.append(out[0, len(prompt) :].tolist())
        return answers


def load_lean(folder: Path) -> TinyQwen3:
    """The lean network with the weights of a Hugging Face folder."""
    config = json.loads((folder / "config.json").read_text())
    known = {k: config[k] for k in Shape.__dataclass_fields__ if k in config}
    known.setdefault("rope_theta", config.get("rope_parameters", {}).get("rope_theta", 10000.0))
    model = TinyQwen3(Shape(**known), config["max_position_embeddings"])
    weights = {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}
    model.load_state_dict(weights)
    return model.eval()


def _is_plain_qwen3(config: dict) -> bool:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return (
        config.get("architectures") == ["Qwen3ForCausalLM"]
        and bool(config.get("tie_word_embeddings"))
        and not config.get("attention_bias")
        and not config.get("use_sliding_window")
        and rope.get("rope_type", "default") == "default"
    )


def open_target(name: str, device: str = "cpu") -> FrozenTarget:
    """The lean network where it fits the folder, transformers otherwise."""
    folder = Path(name)
    path = folder / "config.json"
    if path.exists():
        config = json.loads(path.read_text())
        if _is_plain_qwen3(config) and (folder / "model.safetensors").exists():
            return LeanTarget(folder, device)
    return HubTarget(name, device)
