"""Tiny checkpoints of every kind of draft, and what serves a block of them in one process."""

import json
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from published_drafts import plain
from rooms import one_rank
from safetensors.torch import save_file

from sglang_dflash.checkpoints.checks.names import expected_tensors
from sglang_dflash.checkpoints.config import from_speculators, is_speculators, parse_draft_config
from sglang_dflash.cpu.attention import CpuAttention
from sglang_dflash.cpu.host.pool import CpuKVPool
from sglang_dflash.engine.commit.inject import ContextInjector, Features
from sglang_dflash.engine.draft.ends import build_ends
from sglang_dflash.engine.draft.model import DFlashDraftModel

VOCAB, HIDDEN, BLOCK, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 61, 48, 5, 3, 4, 2, 16
TAPS = [0, 2]


def tiny(**fields: Any) -> dict[str, Any]:
    """A small draft; its three layers fit every kind."""
    own = {"mask_token_id": 3, "target_layer_ids": TAPS} | (fields.pop("dflash_config", None) or {})
    return (
        plain(
            hidden_size=HIDDEN,
            intermediate_size=40,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=KV_HEADS,
            head_dim=HEAD_DIM,
            vocab_size=VOCAB,
            max_position_embeddings=128,
            block_size=BLOCK,
            num_target_layers=4,
            rope_theta=10000.0,
            dflash_config=own,
        )
        | fields
    )


_SLIDING = {"layer_types": ["sliding_attention"] * LAYERS, "sliding_window": 7, "use_sliding_window": True}
_SELECTOR = {"selector_rank": 6, "selector_top_k": 4, "conv_kernel_size": 2, "conv_group_size": 8}
_LAGUNA = _SLIDING | {"architectures": ["DFlashLagunaForCausalLM"], "model_type": "laguna", "gating": "per-head"}
_LAYERS_OF_SPECULATORS = {
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": 40,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "vocab_size": VOCAB,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
}
_SPECULATORS = {
    "architectures": ["DFlashDraftModel"],
    "speculators_model_type": "dflash",
    "aux_hidden_state_layer_ids": [1, 3],
    "block_size": BLOCK,
    "mask_token_id": 3,
    "transformer_layer_config": _LAYERS_OF_SPECULATORS,
}
KINDS: dict[str, dict[str, Any]] = {
    "plain": tiny(),
    "windows, the last layer full": tiny(
        **_SLIDING | {"layer_types": ["sliding_attention"] * (LAYERS - 1) + ["full_attention"]}
    ),
    "windows both ways": tiny(**_SLIDING, is_causal=False),
    "all causal": tiny(is_causal=True),
    "yarn and biases": tiny(
        attention_bias=True,
        rope_theta=20000.0,
        rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    ),
    "rope_parameters, nested block": tiny(
        rope_theta=None,
        block_size=None,
        rope_parameters={"rope_theta": 5e5, "rope_type": "default"},
        dflash_config={"block_size": BLOCK},
    ),
    "mimo": tiny(
        partial_rotary_factor=0.5,
        dflash_config={
            "use_swa": True,
            "swa_window_size": 6,
            "attention_sink_bias": True,
            "attention_value_scale": 0.612,
        },
    ),
    "laguna": tiny(**_LAGUNA, dflash_config={"causal": True}),
    "laguna, gate per channel": tiny(**_LAGUNA | {"gating": "per-element"}, dflash_config={"causal": True}),
    "muse": tiny(**_SLIDING) | {"architectures": ["MuseGlimmerAssistantModel"]},
    "gemma norms": tiny(use_gemma_norm=True),
    "dflash 2": tiny(
        **_SLIDING, is_causal=False, dflash_config=_SELECTOR | {"output_multiplier": 0.2, "final_logit_softcapping": 20}
    )
    | {"architectures": ["DFlash2DraftModel"]},
    "dflash 2, beam": tiny(dflash_config=_SELECTOR | {"conv_kernel_size": 3})
    | {"architectures": ["DFlash2BeamDraftModel"]},
    "minimax dflash 2": tiny(
        use_gemma_norm=True, hidden_act="swigluoai", swiglu_alpha=1.702, swiglu_limit=7.0, dflash_config=_SELECTOR
    )
    | {"architectures": ["MiniMaxDFlash2DraftModel"]},
    "nemotron": tiny(has_embed_tokens=True, dflash_config={"causal": False, "sample_from_anchor": False}),
    "own head": tiny(has_lm_head=True),
    "speculators": _SPECULATORS | {"draft_vocab_size": VOCAB},
    "speculators, part of the vocabulary": _SPECULATORS | {"draft_vocab_size": 23},
    "speculators, windows": _SPECULATORS
    | {"draft_vocab_size": VOCAB, "sliding_window_non_causal": True}
    | {"transformer_layer_config": _LAYERS_OF_SPECULATORS | _SLIDING},
    "speculators dflash 2": _SPECULATORS
    | {"draft_vocab_size": 31, "architectures": ["DFlash2Speculator"], "speculators_model_type": "dflash2"}
    | _SELECTOR
    | {"input_embedding_scale": 2.0},
}


def tensors_of(config: dict[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights that matter: norms near one, base kernels that keep their input, ends, a vocabulary map."""
    generator = torch.Generator().manual_seed(seed)
    draft = parse_draft_config(config)
    shapes = expected_tensors(draft)
    if draft.optional_ends:
        rows = draft.draft_vocab_size or VOCAB
        shapes |= {"embed_tokens.weight": (VOCAB, HIDDEN), "lm_head.weight": (rows, HIDDEN)}
    tensors = {name: 0.25 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for name in tensors:
        if "norm" in name and not config.get("use_gemma_norm"):
            tensors[name] += 1.0
        if name.endswith("base_kernel"):
            tensors[name][:, 0] += 1.0
    if "d2t" in tensors:
        chosen = torch.randperm(VOCAB, generator=generator)[: len(tensors["d2t"])].sort().values
        tensors["d2t"] = chosen - torch.arange(len(chosen))
    return tensors


def write(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


def target() -> SimpleNamespace:
    """Embedding and head of a target."""
    generator = torch.Generator().manual_seed(7)
    embed = torch.nn.Embedding(VOCAB, HIDDEN)
    head = torch.nn.Linear(HIDDEN, VOCAB, bias=False)
    embed.weight.data = torch.randn(VOCAB, HIDDEN, generator=generator)
    head.weight.data = torch.randn(VOCAB, HIDDEN, generator=generator)
    return SimpleNamespace(lm_head=head, get_input_embeddings=lambda: embed)


def single_rank():
    """SGLang's parallel context of one process, group included, which its layers ask for when they run."""
    return one_rank(tp_group=SimpleNamespace(world_size=1, rank_in_group=0))


def built(config: dict[str, Any], model_class: type = DFlashDraftModel):
    """A draft model in SGLang's layers, without weights."""
    raw = from_speculators(config) if is_speculators(config) else config
    with single_rank():
        return model_class(SimpleNamespace(to_dict=lambda: raw))


def loaded(config: dict[str, Any], tensors: dict[str, torch.Tensor], ends_of: SimpleNamespace) -> DFlashDraftModel:
    """Our draft, ready to draft blocks between the ends of a target."""
    model = built(config)
    model.load_weights(tensors.items())
    with single_rank():
        model.bind(build_ends(model, ends_of, 3, None, BLOCK), BLOCK, "dflash_cpu")
    return model


class Bench:
    """Slots of two requests, permuted, and SGLang's forward pass of a draft block over them."""

    SLOTS = 120

    def __init__(self, layers: int = LAYERS):
        self.pool = CpuKVPool(self.SLOTS, 1, torch.float32, KV_HEADS, HEAD_DIM, layers, "cpu", False)
        order = torch.randperm(self.SLOTS - 1, generator=torch.Generator().manual_seed(2)) + 1
        self.table = order[:100].view(2, 50).int()
        self.runner = SimpleNamespace(
            use_mla_backend=False,
            device="cpu",
            token_to_kv_pool=self.pool,
            req_to_token_pool=SimpleNamespace(req_to_token=self.table),
        )
        self.backend = CpuAttention(self.runner)

    @torch.no_grad()
    def inject(self, model: DFlashDraftModel, contexts: list[torch.Tensor]) -> None:
        """Context features [tokens, K * hidden] of each request, from position 0."""
        injector = ContextInjector(model, self.runner)
        injector.prepare()
        with single_rank():
            for row, context in enumerate(contexts):
                positions = torch.arange(len(context))
                injector(Features(context, positions, self.table[row, : len(context)].long(), None))

    def batch(self, prefix_lens: list[int]) -> SimpleNamespace:
        """The forward batch of a block behind each request's context."""
        starts = torch.tensor(prefix_lens)
        positions = (starts[:, None] + torch.arange(BLOCK)).view(-1)
        slots = torch.cat([self.table[i, n : n + BLOCK] for i, n in enumerate(prefix_lens)]).long()
        mode = SimpleNamespace(
            is_idle=lambda: False, is_decode=lambda: False, is_target_verify=lambda: True, is_extend=lambda: True
        )
        return SimpleNamespace(
            forward_mode=mode,
            req_pool_indices=torch.arange(len(prefix_lens)),
            seq_lens=starts,
            out_cache_loc=slots,
            positions=positions,
            spec_info=SimpleNamespace(draft_token_num=BLOCK, custom_mask=None),
        )

    @contextmanager
    def serving(self, forward_batch):
        """SGLang's context of one forward pass."""
        from sglang.srt.model_executor.forward_context import ForwardContext, forward_context

        self.backend.init_forward_metadata(forward_batch)
        with torch.no_grad(), single_rank(), forward_context(ForwardContext(self.backend)):
            yield
