"""A decoder pass of a Qwen3- or Llama-class model in as few torch calls as a CPU step needs.

SGLang's own pass walks some thirty Python frames a layer; for a small model that is most of a step. This one
reads the same parameters, writes the same KV rows and captures the same layers. It takes the place of the
loaded model's inner ``forward``; a model it does not fit keeps SGLang's.
"""

import logging
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from sglang_dflash.cpu.host.operators import (
    ROTARY_CLASSES,
    AuxHiddenStateList,
    LogitsProcessorOutput,
    RMSNorm,
    UnquantizedEmbeddingMethod,
    UnquantizedLinearMethod,
    get_attn_backend,
    lora_enabled,
    pack_aux_hidden_states,
    tensor_model_parallel_all_reduce,
)
from sglang_dflash.cpu.operators import inverse_rms, normed, rotation
from sglang_dflash.engine.draft.model import DFlashDraftModel
from sglang_dflash.kernels import dense

logger = logging.getLogger(__name__)


# SGLang's classes whose layers are attention and a gated feed-forward, each behind an RMS norm.
CLASSES = {"Qwen3ForCausalLM", "Qwen2ForCausalLM", "LlamaForCausalLM", "MistralForCausalLM"}


class Layer(NamedTuple):
    """Parameters of one decoder layer, the model's own, and its matrices to multiply by."""

    input_norm: torch.Tensor
    qkv: dense.Matrix
    qkv_bias: torch.Tensor | None
    head_norms: tuple[torch.Tensor, ...]  # of queries and keys, [head_dim] each; empty where they are not normed
    out: dense.Matrix
    out_bias: torch.Tensor | None
    mlp_norm: torch.Tensor
    gate_up: dense.Matrix
    down: dense.Matrix
    attention: nn.Module  # SGLang's RadixAttention: sizes, scale, window, layer id


def reason_against(model) -> str | None:
    """Why the lean pass does not fit ``model``, or None where it does."""
    if type(model).__name__ in CLASSES and type(model).__module__.startswith("sglang."):
        if model.pp_group.world_size != 1:
            return "pipeline parallel"
        if lora_enabled():
            return "LoRA"
    elif not isinstance(model, DFlashDraftModel):
        return f"{type(model).__name__} is none of {', '.join(sorted(CLASSES))}, and not our draft"
    elif not model.is_plain:
        return "a draft with more than Qwen3's layers"
    for layer in _stack(model).layers:
        attention, mlp = layer.self_attn, layer.mlp
        linears = (attention.qkv_proj, attention.o_proj, mlp.gate_up_proj, mlp.down_proj)
        if not all(isinstance(linear.quant_method, UnquantizedLinearMethod) for linear in linears):
            return "quantised weights"
        if any(linear.bias is not None for linear in linears[2:]):
            return "biases in the feed-forward"
        rotary = attention.rotary_emb
        if type(rotary) not in ROTARY_CLASSES or not rotary.is_neox_style or rotary.rotary_dim != rotary.head_size:
            return f"rotary embedding {type(rotary).__name__}"
        norms = (layer.input_layernorm, layer.post_attention_layernorm, *_head_norms(attention))
        if not all(type(norm) is RMSNorm and not norm.cast_x_before_out_mul for norm in norms):
            return "norms of another kind"
    return None


def install(model) -> None:
    """Give ``model`` the lean pass where it fits, and say so."""
    reason = reason_against(model)
    if reason is not None:
        logger.info("CPU platform: SGLang's own decoder pass (%s)", reason)
        return
    stack = _stack(model)
    name = "decode" if stack is model else "forward"
    setattr(stack, name, LeanDecoder(stack, getattr(stack, name)))
    if stack is not model and head_fits(model):
        model.forward = LeanHead(model)
    logger.info("CPU platform: lean decoder pass over %d layers", len(stack.layers))


def _head_norms(attention) -> tuple:
    """The norms of queries and keys over a head, in this order, where the model has them."""
    return (attention.q_norm, attention.k_norm) if hasattr(attention, "q_norm") else ()


def _stack(model):
    """The module that owns layers and final norm: SGLang's inner model, or our draft itself."""
    return model if isinstance(model, DFlashDraftModel) else model.model


def head_fits(model) -> bool:
    """True where logits are one product with the head's rows: not split over ranks, scaled or quantised."""
    processor, head = model.logits_processor, model.lm_head
    split = processor.do_tensor_parallel_all_gather or processor.do_tensor_parallel_all_gather_dp_attn
    changed = processor.logit_scale is not None or processor.final_logit_softcapping
    plain = isinstance(head.quant_method, UnquantizedEmbeddingMethod) and getattr(head, "bias", None) is None
    return plain and not split and not changed


class LeanHead:
    """Stands in for a model's ``forward`` in decode and verify; every other pass goes to the model's own."""

    def __init__(self, model):
        self._model = model
        self._slow = model.forward
        self._head = dense.matrix_of(model.lm_head, model.config.vocab_size)

    def __call__(self, input_ids, positions, forward_batch, *args, **kwargs):
        """Logits [tokens, vocab] float32 in SGLang's LogitsProcessorOutput, with captured layers side by side."""
        model, mode = self._model, forward_batch.forward_mode
        if mode.is_decode():
            fits = not forward_batch.capture_hidden_mode.need_capture() and not model.capture_aux_hidden_states
        else:
            # What a verify pass captures are whole layers, or it is not DFLASH's.
            fits = mode.is_target_verify() and model.capture_aux_hidden_states
        if args or not fits or model.logits_processor.keep_last_hidden_states:
            return self._slow(input_ids, positions, forward_batch, *args, **kwargs)
        hidden, captured = model.model.forward(input_ids, positions, forward_batch), None
        if model.capture_aux_hidden_states:
            hidden, captured = hidden
        return LogitsProcessorOutput(
            next_token_logits=self._head.project(hidden).float(),
            hidden_states=None if captured is None else pack_aux_hidden_states(captured),
        )


class LeanDecoder:
    """Callable with the signature of ``Qwen3Model.forward``; ``slow`` runs an idle rank's empty batch."""

    captures_last_layer = True  # where ``layers_to_capture`` holds the number of layers

    def __init__(self, model, slow):
        first = model.layers[0].self_attn
        self._model = model
        self._slow = slow
        self._layers = [_parameters(layer) for layer in model.layers]
        self._heads, self._kv_heads, self._dim = first.num_heads, first.num_kv_heads, first.head_dim
        self._rotary = first.rotary_emb
        self._eps = model.layers[0].input_layernorm.variance_epsilon
        self._ranks = first.total_num_heads // first.num_heads
        self._table: tuple | None = None  # cos_sin_cache, cosines, signed sines

    def __call__(self, input_ids, positions, forward_batch, input_embeds=None, pp_proxy_tensors=None):
        """Hidden states [tokens, hidden], normed; with captured layers, a pair of them and a list."""
        if forward_batch.forward_mode.is_idle():
            return self._slow(input_ids, positions, forward_batch, input_embeds, pp_proxy_tensors)
        model = self._model
        x = model.embed_tokens(input_ids) if input_embeds is None else input_embeds
        cos, sin = self._rotations(positions, x.dtype)
        backend = get_attn_backend()
        join = _add if self._ranks == 1 else _add_partial
        captured, wanted = AuxHiddenStateList(), model.layers_to_capture
        for index, layer in enumerate(self._layers):
            if index in wanted:
                captured.append(x)
            mixed = self._attend(x, layer, cos, sin, backend, forward_batch)
            x = join(layer.out, x, mixed, layer.out_bias)
            gate, up = layer.gate_up.project(normed(x, layer.mlp_norm, self._eps)).chunk(2, -1)
            x = join(layer.down, x, F.silu(gate).mul_(up), None)
        if len(self._layers) in wanted:
            captured.append(x)
        x = normed(x, model.norm.weight, self._eps)
        return (x, captured) if captured else x

    def _attend(self, x, layer: Layer, cos, sin, backend, forward_batch) -> torch.Tensor:
        """Attention's output before its projection, [tokens, heads * head_dim]."""
        heads, kv_heads, dim = self._heads, self._kv_heads, self._dim
        x = normed(x, layer.input_norm, self._eps)
        qkv = layer.qkv.project(x, layer.qkv_bias)
        rows = qkv.view(-1, heads + 2 * kv_heads, dim)
        # Rotated in place: the keys then lie beside the values, as a row of the KV pool.
        turned = rows[:, : heads + kv_heads]
        if not layer.head_norms:
            swapped = turned.roll(dim // 2, -1)
            turned.mul_(cos)
        else:
            level = self._level(turned, *layer.head_norms)
            swapped = level.roll(dim // 2, -1)
            torch.mul(level, cos, out=turned)
        turned.addcmul_(swapped, sin)
        return backend.attend_rows(turned[:, :heads], qkv[:, heads * dim :], layer.attention, forward_batch)

    def _level(self, turned: torch.Tensor, q_norm: torch.Tensor, k_norm: torch.Tensor) -> torch.Tensor:
        """Queries and keys [tokens, heads + kv_heads, head_dim], each head normed."""
        if turned.dtype == torch.float32:
            level = turned * inverse_rms(turned, self._eps)
        else:
            level = torch.rms_norm(turned, (self._dim,), None, self._eps)
        level[:, : self._heads].mul_(q_norm)
        level[:, self._heads :].mul_(k_norm)
        return level

    def _rotations(self, positions, dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and signed sines [tokens, 1, head_dim]; the table is widened when SGLang grows it."""
        source = self._rotary.cos_sin_cache
        if self._table is None or self._table[0] is not source:
            self._table = (source, *rotation(source, dtype))
        return self._table[1].index_select(0, positions), self._table[2].index_select(0, positions)


def _add(matrix: dense.Matrix, residual, x, bias) -> torch.Tensor:
    return matrix.add(residual, x, bias)


def _add_partial(matrix: dense.Matrix, residual, x, bias) -> torch.Tensor:
    partial = tensor_model_parallel_all_reduce(matrix.project(x))
    return residual + (partial if bias is None else partial + bias)


def _parameters(layer) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return Layer(
        layer.input_layernorm.weight.data,
        dense.matrix_of(attention.qkv_proj),
        _data(attention.qkv_proj.bias),
        tuple(norm.weight.data for norm in _head_norms(attention)),
        dense.matrix_of(attention.o_proj),
        _data(attention.o_proj.bias),
        layer.post_attention_layernorm.weight.data,
        dense.matrix_of(mlp.gate_up_proj),
        dense.matrix_of(mlp.down_proj),
        attention.attn,
    )


def _data(bias: torch.Tensor | None) -> torch.Tensor | None:
    return None if bias is None else bias.data
