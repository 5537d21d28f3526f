"""A greedy Qwen3 decode step in plain functional torch: what a step costs without a server around it."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from sglang_dflash.errors import DFlashError


class BareQwen3:
    """Batch 1, float32, contiguous KV cache, a Hugging Face checkpoint's weights; no modules, no dispatch."""

    def __init__(self, folder: str, max_tokens: int):
        config = json.loads((Path(folder) / "config.json").read_text())
        if config["model_type"] != "qwen3":
            raise DFlashError("target", f"is a {config['model_type']} model", "give a Qwen3 checkpoint")
        rope = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta", 10000.0)}
        if rope.get("rope_type", "default") != "default":
            raise DFlashError("rope_type", f"is {rope['rope_type']}", "give a checkpoint with the default one")
        weights = {}
        for path in sorted(Path(folder).glob("*.safetensors")):
            weights |= {name: value.float() for name, value in load_file(path).items()}
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.dim = config.get("head_dim") or config["hidden_size"] // self.heads
        self.eps = config["rms_norm_eps"]
        self.embedding = weights["model.embed_tokens.weight"]
        self.head = self.embedding if config["tie_word_embeddings"] else weights["lm_head.weight"]
        self.norm = weights["model.norm.weight"]
        self.layers = [_layer(weights, f"model.layers.{i}.") for i in range(config["num_hidden_layers"])]
        frequencies = rope["rope_theta"] ** (-torch.arange(0, self.dim, 2) / self.dim)
        angles = torch.outer(torch.arange(float(max_tokens)), frequencies).repeat(1, 2)
        self.cos, self.sin = angles.cos(), angles.sin()
        self.keys = torch.zeros(len(self.layers), 1, self.kv_heads, max_tokens, self.dim)
        self.values = torch.zeros_like(self.keys)

    @torch.inference_mode()
    def step(self, token: torch.Tensor, position: int) -> torch.Tensor:
        """The greedy next token [1] after ``token`` [1] at ``position``; its KV joins the cache."""
        x = F.embedding(token, self.embedding)
        cos, sin = self.cos[position], self.sin[position]
        end = position + 1
        for i, layer in enumerate(self.layers):
            h = F.rms_norm(x, x.shape[1:], layer["input_norm"], self.eps)
            q = F.linear(h, layer["q"]).view(1, self.heads, 1, self.dim)
            k = F.linear(h, layer["k"]).view(1, self.kv_heads, 1, self.dim)
            v = F.linear(h, layer["v"]).view(1, self.kv_heads, 1, self.dim)
            q = _turn(F.rms_norm(q, (self.dim,), layer["q_norm"], self.eps), cos, sin)
            k = _turn(F.rms_norm(k, (self.dim,), layer["k_norm"], self.eps), cos, sin)
            self.keys[i, :, :, position:end] = k
            self.values[i, :, :, position:end] = v
            keys, values = self.keys[i, :, :, :end], self.values[i, :, :, :end]
            mixed = F.scaled_dot_product_attention(q, keys, values, enable_gqa=True)
            x = x + F.linear(mixed.reshape(1, -1), layer["o"])
            h = F.rms_norm(x, x.shape[1:], layer["mlp_norm"], self.eps)
            x = x + F.linear(F.silu(F.linear(h, layer["gate"])) * F.linear(h, layer["up"]), layer["down"])
        return F.linear(F.rms_norm(x, x.shape[1:], self.norm, self.eps), self.head).argmax(-1)


def _layer(weights: dict, prefix: str) -> dict[str, torch.Tensor]:
    names = {
        "input_norm": "input_layernorm",
        "mlp_norm": "post_attention_layernorm",
        **{key: f"self_attn.{key}_proj" for key in ("q", "k", "v", "o")},
        **{key: f"self_attn.{key}" for key in ("q_norm", "k_norm")},
        **{key: f"mlp.{key}_proj" for key in ("gate", "up", "down")},
    }
    return {key: weights[f"{prefix}{name}.weight"] for key, name in names.items()}


def _turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin
