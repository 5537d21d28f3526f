"""What the worker's rooms are tested on: a small real draft, and the fields of a runner that they read."""

from types import SimpleNamespace

import torch
from published_drafts import plain

from sglang_dflash.checkpoints.checks.names import expected_tensors
from sglang_dflash.checkpoints.config import parse_draft_config
from sglang_dflash.engine.draft.model import DFlashDraftModel
from sglang_dflash.host.model_api import get_parallel

HIDDEN, HEAD_DIM, KV_HEADS, LAYERS = 32, 8, 2, 3
CONFIG = plain(
    hidden_size=HIDDEN,
    intermediate_size=48,
    num_hidden_layers=LAYERS,
    num_attention_heads=4,
    num_key_value_heads=KV_HEADS,
    head_dim=HEAD_DIM,
    vocab_size=50,
    max_position_embeddings=64,
    block_size=4,
    num_target_layers=4,
    dflash_config={"mask_token_id": 3, "target_layer_ids": [0, 2]},
)


def one_rank(**more):
    """SGLang's parallel context of a single process, which its layers read when they are built."""
    return get_parallel().override(tp_size=1, tp_rank=0, attn_tp_size=1, attn_tp_rank=0, **more)


def checkpoint(config=CONFIG, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors of a complete draft checkpoint, under their published names."""
    generator = torch.Generator().manual_seed(seed)
    shapes = expected_tensors(parse_draft_config(config))
    return {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def unloaded_draft(config=CONFIG) -> DFlashDraftModel:
    """The draft model in SGLang's own layers, without weights."""
    with one_rank():
        return DFlashDraftModel(SimpleNamespace(to_dict=lambda: config))


def draft_model(config=CONFIG, seed: int = 0) -> DFlashDraftModel:
    """A loaded draft model."""
    model = unloaded_draft(config)
    model.load_weights(checkpoint(config, seed).items())
    return model


class Pool:
    """Keys and values of every layer, [slots, kv_heads, head_dim] each."""

    start_layer, store_dtype, dtype = 0, torch.float32, torch.float32

    def __init__(self, layers: int = LAYERS, slots: int = 40, heads: int = KV_HEADS, head_dim: int = HEAD_DIM):
        self.layer_num = layers
        self.keys = [torch.randn(slots, heads, head_dim) for _ in range(layers)]
        self.values = [torch.randn(slots, heads, head_dim) for _ in range(layers)]

    def get_key_buffer(self, layer: int) -> torch.Tensor:
        return self.keys[layer]

    def get_value_buffer(self, layer: int) -> torch.Tensor:
        return self.values[layer]


def runner(pool: Pool | None = None, rows: torch.Tensor | None = None) -> SimpleNamespace:
    """A model runner, as far as the rooms look at it."""
    return SimpleNamespace(
        device="cpu",
        token_to_kv_pool=pool,
        req_to_token_pool=SimpleNamespace(req_to_token=rows),
        kv_index_translator="translator",
    )
