"""The pair's trained draft, made into drafts of other kinds that still guess right now and then."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

SELECTOR = {"conv_kernel_size": 2, "conv_group_size": 16, "selector_rank": 8, "selector_top_k": 6}


class Trained:
    """Config and tensors of the pair's draft and its target's ends, to be changed freely."""

    def __init__(self, pair):
        self.config = json.loads((Path(pair.draft) / "config.json").read_text())
        self.own = self.config["dflash_config"]
        self.tensors = load_file(Path(pair.draft) / "model.safetensors")
        target = load_file(Path(pair.target) / "model.safetensors")
        self.embedding = target["model.embed_tokens.weight"]
        self.head = target.get("lm_head.weight", self.embedding)
        self.layers, self.hidden = self.config["num_hidden_layers"], self.config["hidden_size"]
        self.vocab = self.config["vocab_size"]
        self._generator = torch.Generator().manual_seed(0)

    def noise(self, *shape: int, scale: float) -> torch.Tensor:
        return scale * torch.randn(shape, generator=self._generator)

    def save(self, folder: Path) -> str:
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(self.config))
        tensors = {name: tensor.contiguous().clone() for name, tensor in self.tensors.items()}
        save_file(tensors, folder / "model.safetensors")
        return str(folder)


def dflash2(draft: Trained) -> None:
    """Convolutions close to none, a selector that changes some of the choices."""
    draft.config["architectures"] = ["DFlash2DraftModel"]
    draft.own.update(SELECTOR, output_multiplier=0.5, final_logit_softcapping=25.0)
    _add_selector(draft)


def _add_selector(draft: Trained) -> None:
    groups = draft.hidden // SELECTOR["conv_group_size"]
    for layer in range(draft.layers):
        for name in ("attention_conv", "mlp_conv"):
            base = draft.noise(2, 2, draft.hidden, scale=0.02)
            base[:, 0] += 1.0
            draft.tensors[f"layers.{layer}.{name}.base_kernel"] = base
            projection = draft.noise(4 * groups, draft.hidden, scale=0.002)
            draft.tensors[f"layers.{layer}.{name}.kernel_projection.weight"] = projection
    rank = SELECTOR["selector_rank"]
    for name in ("predecessor", "successor"):
        draft.tensors[f"candidate_selector.{name}_codebook"] = draft.noise(draft.vocab, rank, scale=0.5)
    draft.tensors["candidate_selector.hidden_projection.weight"] = draft.noise(rank, draft.hidden, scale=0.1)


def laguna(draft: Trained) -> None:
    """Gates near one, norms that undo what they can; the projections stored fused."""
    draft.config |= {
        "architectures": ["DFlashLagunaForCausalLM"],
        "model_type": "laguna",
        "gating": "per-head",
        "layer_types": ["sliding_attention"] * draft.layers,
        "sliding_window": 64,
    }
    draft.own.update(causal=False, block_size=draft.config["block_size"])
    heads = draft.config["num_attention_heads"]
    for layer in range(draft.layers):
        name = f"layers.{layer}.self_attn"
        draft.tensors[f"{name}.g_proj.weight"] = draft.noise(heads, draft.hidden, scale=0.01)
        draft.tensors[f"{name}.o_proj.weight"] /= 0.6931
        parts = [draft.tensors.pop(f"{name}.{part}_proj.weight") for part in "qkv"]
        draft.tensors[f"{name}.qkv_proj.weight"] = torch.cat(parts)
    for i in range(len(draft.own["target_layer_ids"])):
        draft.tensors[f"aux_hidden_norms.{i}.weight"] = 1.0 + draft.noise(draft.hidden, scale=0.1)


def mimo(draft: Trained) -> None:
    """Sinks, scaled values, windows by DFlash's own keys, and a rotation of a part of each head."""
    draft.config["partial_rotary_factor"] = 0.5
    draft.own.update(use_swa=True, swa_window_size=48, attention_sink_bias=True, attention_value_scale=0.612)
    for layer in range(draft.layers):
        sinks = draft.noise(draft.config["num_attention_heads"], scale=1.0)
        draft.tensors[f"layers.{layer}.self_attn.attention_sink_bias"] = sinks
        draft.tensors[f"layers.{layer}.self_attn.o_proj.weight"] /= 0.612


def nemotron(draft: Trained) -> None:
    """An embedding of its own."""
    draft.config |= {"has_embed_tokens": True, "has_lm_head": False, "mask_token_id": draft.own["mask_token_id"]}
    draft.own.update(causal=False, use_swa=False, sample_from_anchor=False)
    draft.tensors["embed_tokens.weight"] = draft.embedding + draft.noise(*draft.embedding.shape, scale=0.002)


def speculators(draft: Trained) -> None:
    """vLLM's layout; its head knows most of the vocabulary."""
    rows = draft.vocab * 3 // 4
    chosen = torch.randperm(draft.vocab, generator=torch.Generator().manual_seed(1))[:rows].sort().values
    layers = {k: v for k, v in draft.config.items() if k not in ("architectures", "dflash_config", "block_size")}
    draft.config = {
        "architectures": ["DFlashSpeculator"],
        "speculators_model_type": "dflash",
        "speculators_config": {"algorithm": "dflash", "proposal_methods": [{"speculative_tokens": 15}]},
        "aux_hidden_state_layer_ids": [i + 1 for i in draft.own["target_layer_ids"]],
        "block_size": draft.config["block_size"],
        "mask_token_id": draft.own["mask_token_id"],
        "draft_vocab_size": rows,
        "dtype": "float32",
        "transformer_layer_config": layers,
    }
    draft.tensors |= {
        "embed_tokens.weight": draft.embedding,
        "lm_head.weight": draft.head[chosen],
        "d2t": chosen - torch.arange(rows),
    }


def speculators_dflash2(draft: Trained) -> None:
    """The same with DFlash 2's parts."""
    _add_selector(draft)
    speculators(draft)
    draft.config |= SELECTOR | {"architectures": ["DFlash2Speculator"], "speculators_model_type": "dflash2"}


KINDS = {make.__name__: make for make in (dflash2, laguna, mimo, nemotron, speculators, speculators_dflash2)}
# Kinds that SGLang's own worker serves alike on a host.
BUILTIN = ("dflash2",)
