"""Tiny random checkpoints: a target in Hugging Face layout, and a DFlash draft that fits it."""

import json
import shutil
from pathlib import Path

import torch
import transformers
from family import BLOCK, HIDDEN, MASK_TOKEN, VOCAB, Family
from safetensors.torch import load_file, save_file

from sglang_dflash.checkpoints.checks.names import expected_tensors
from sglang_dflash.checkpoints.config import parse_draft_config
from sglang_dflash.tools.pair import TARGET_DIR

# Standard deviation of the logits: wide enough that two tokens are never close by chance alone.
LOGIT_SPREAD = 4.0
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def build_pair(family: Family, folder: Path) -> tuple[Path, Path]:
    """Write ``folder``/target and ``folder``/draft of ``family``; the same weights in every run."""
    target, draft = folder / "target", folder / "draft"
    config = family.config()
    build_target(family, config, target)
    text = config.get_text_config()
    build_draft(family, text.num_hidden_layers, draft)
    return target, draft


def build_target(family: Family, config, folder: Path) -> None:
    """A random model of ``config``, whose outputs vary with every token, and the pair's tokenizer."""
    torch.manual_seed(family.seed)  # what the model itself draws
    generator = torch.Generator().manual_seed(family.seed)
    model = getattr(transformers, family.model)(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            _draw(name, parameter, generator)
            if family.init is not None:
                family.init(name, parameter)
    model.save_pretrained(folder)
    if family.rename:
        _rename(family.rename, folder / "model.safetensors")
    written = folder / "config.json"
    written.write_text(json.dumps(json.loads(written.read_text()) | dict(family.published), indent=1))
    for name in TOKENIZER_FILES:
        shutil.copy(TARGET_DIR / name, folder / name)
    if family.processor is not None:
        family.processor(folder)


def _rename(parts, path: Path) -> None:
    tensors = load_file(path)
    for old, new in parts.items():
        tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    save_file(tensors, path, metadata={"format": "pt"})


def _draw(name: str, parameter: torch.Tensor, generator: torch.Generator) -> None:
    noise = torch.randn(parameter.shape, generator=generator)
    if parameter.ndim < 2:
        # Norms, biases, sinks: around what the model was built with.
        parameter.add_(0.2 * noise)
    elif "embed" in name:
        parameter.copy_(noise)
    elif "lm_head" in name:
        parameter.copy_(noise * LOGIT_SPREAD / parameter.shape[-1] ** 0.5)
        parameter[VOCAB:] = 0  # what stands for an image must not be an answer
    else:
        parameter.copy_(noise * 1.5 / parameter.shape[-1] ** 0.5)


def build_draft(family: Family, target_layers: int, folder: Path) -> None:
    """A random draft of two layers over the family's taps."""
    config = {
        "architectures": ["DFlashDraftModel"],
        "model_type": "qwen3",
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 96,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "max_position_embeddings": 1024,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": False,
        "dtype": "float32",
        "block_size": BLOCK,
        "num_target_layers": target_layers,
        "dflash_config": {"mask_token_id": MASK_TOKEN, "target_layer_ids": list(family.taps)},
    } | dict(family.draft)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    generator = torch.Generator().manual_seed(2)
    tensors = {}
    for name, shape in expected_tensors(parse_draft_config(config)).items():
        noise = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            gain = 6.0 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.5
            tensors[name] = noise * gain / shape[-1] ** 0.5
        else:
            # Sharp attention, and much of it: the drafts depend on single tokens of the context.
            tensors[name] = (3.0 if "self_attn" in name else 1.0) + 0.2 * noise
    save_file(tensors, folder / "model.safetensors")
