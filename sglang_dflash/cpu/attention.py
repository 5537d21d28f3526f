"""Attention on the host: batched torch over SGLang's paged KV pool, every mode through one body.

Decode, ragged extend (prefix, chunked, mixed), verify of a chain or a tree, and the draft's bidirectional block;
sliding windows, soft caps, sinks, latent attention. Query heads that share a KV head are folded into the query
axis, or left to torch's grouped attention, so keys and values are gathered once and never repeated.
"""

import torch
import torch.nn.functional as F

from sglang_dflash.cpu.host.attention import AttentionBackend, AttentionType
from sglang_dflash.cpu.rows import rows_of
from sglang_dflash.cpu.spans import Span, extend_spans, uniform_span, verify_span
from sglang_dflash.errors import DFlashError


class ImageSpans:
    """What a model adds to the plan of a prefill: [tokens, 2], first and last column of each token's image, or -1."""

    image_token_ranges: torch.Tensor | None = None


class CpuAttention(AttentionBackend):
    """The backend ``dflash_cpu``: one for target, one for draft, each with its own pool and slot table."""

    # Lengths live on the host already: nothing has to be copied for us.
    needs_cpu_seq_lens = False

    def __init__(self, runner):
        super().__init__()
        # SGLang's models find the pools through the backend.
        self.req_to_token_pool = runner.req_to_token_pool
        self.token_to_kv_pool = runner.token_to_kv_pool
        self._kv = rows_of(runner.token_to_kv_pool)
        self._spans: list[Span] = []
        self.forward_metadata = ImageSpans()

    def expect_images(self) -> None:
        """Have a model whose images see all of themselves (Gemma 4) write them into ``forward_metadata``."""
        self.fa_impl_ver = 4  # the kind of backend that SGLang's model does this for

    def support_triton(self) -> bool:
        return False

    def init_forward_metadata(self, forward_batch) -> None:
        """Plan one forward pass: spans and slots, shared by all layers."""
        mode = forward_batch.forward_mode
        self.forward_metadata.image_token_ranges = None
        table, rows = self.req_to_token_pool.req_to_token, forward_batch.req_pool_indices
        if mode.is_idle():
            self._spans = []
        elif mode.is_decode():
            self._spans = [uniform_span(table, rows, forward_batch.seq_lens, 1)]
        elif mode.is_target_verify():
            seq_lens, positions = forward_batch.seq_lens, forward_batch.positions
            self._spans = [verify_span(table, rows, seq_lens, positions, forward_batch.spec_info)]
        else:
            prefix, new = forward_batch.extend_prefix_lens_cpu, forward_batch.extend_seq_lens_cpu
            self._spans = extend_spans(table, rows, list(prefix), list(new))

    def forward(self, q, k, v, layer, forward_batch, save_kv_cache=True, *, sinks=None, **unsupported):
        """Attention of one layer: [tokens, heads * v_head_dim]; stores k and v first.

        q: [tokens, heads * head_dim]; k, v: [tokens, kv_heads, head_dim] or None; sinks: [heads] or None.
        """
        if any(value is not None for value in unsupported.values()):
            raise DFlashError("attention", f"{', '.join(unsupported)} not supported on the CPU platform", "use a GPU")
        if save_kv_cache and k is not None:
            self._kv.write(layer, forward_batch.out_cache_loc, k, v)
        return self._all_spans(q.view(-1, layer.tp_q_head_num, layer.qk_head_dim), layer, sinks)

    forward_decode = forward
    forward_extend = forward

    def attend_rows(self, q, rows, layer, forward_batch) -> torch.Tensor:
        """``forward`` for keys and values that lie side by side already.

        q: [tokens, heads, head_dim]; rows: [tokens, kv_heads * (head_dim + v_head_dim)].
        """
        self._kv.write_rows(layer, forward_batch.out_cache_loc, rows)
        return self._all_spans(q, layer, None)

    def _all_spans(self, q, layer, sinks) -> torch.Tensor:
        spans = self._spans
        if len(spans) == 1 and (spans[0].pad is None or spans[0].pad.tokens is None):
            return self._attend(q, layer, spans[0], sinks)
        out = q.new_empty(q.shape[0], layer.tp_q_head_num * layer.v_head_dim)
        for span in spans:
            assert span.pad is not None  # several spans are parts of a ragged batch
            out.index_copy_(0, span.pad.tokens, self._attend(q, layer, span, sinks))
        return out

    def _attend(self, q, layer, span: Span, sinks) -> torch.Tensor:
        """The span's share of q [tokens, heads, head_dim] -> [its tokens, heads * v_head_dim]."""
        heads, kv_heads, bs, n = layer.tp_q_head_num, layer.tp_k_head_num, span.bs, span.queries.width
        group = heads // kv_heads
        keys, values = self._kv.read(layer, span)
        keys = keys.view(bs, -1, kv_heads, layer.qk_head_dim).transpose(1, 2)
        values = values.view(bs, -1, kv_heads, layer.v_head_dim).transpose(1, 2)
        if keys.dtype != q.dtype:
            keys, values = keys.to(q.dtype), values.to(q.dtype)
        causal = layer.attn_type is not AttentionType.ENCODER_ONLY
        # In sliding layers only, as the model was trained; SGLang's own backends do so in all layers.
        images = self.forward_metadata.image_token_ranges if layer.sliding_window_size >= 0 else None
        bias = span.bias(causal, layer.sliding_window_size, group, q.dtype, images)
        if span.pad is not None:
            q = q.index_select(0, span.pad.pick)
        if layer.logit_cap > 0 or sinks is not None:
            out = explicit_attention(q.view(bs, n, heads, -1), keys, values, bias, layer, sinks, span.folded)
        elif span.folded:
            out = _folded(q, keys, values, bias, layer.scaling, bs, n, group)
        else:
            out = _grouped(q, keys, values, bias, layer.scaling, bs, n)
        return out if span.pad is None else out.index_select(0, span.pad.place)


def _folded(q, keys, values, bias, scale, bs, n, group) -> torch.Tensor:
    """Few queries: the heads of a group become rows of a query block [bs, kv_heads, group * n, head_dim]."""
    kv_heads = keys.shape[1]
    if n == 1:
        out = F.scaled_dot_product_attention(q.view(bs, kv_heads, group, -1), keys, values, bias, scale=scale)
        return out.reshape(bs, -1)
    q = q.view(bs, n, kv_heads, group, -1).permute(0, 2, 3, 1, 4).reshape(bs, kv_heads, group * n, -1)
    out = F.scaled_dot_product_attention(q, keys, values, bias, scale=scale)
    return out.view(bs, kv_heads, group, n, -1).permute(0, 3, 1, 2, 4).reshape(bs * n, -1)


def _grouped(q, keys, values, bias, scale, bs, n) -> torch.Tensor:
    """Many queries: one mask [bs, 1, n, L] for all heads; torch pairs query heads with KV heads."""
    q = q.view(bs, n, q.shape[1], -1).transpose(1, 2)
    out = F.scaled_dot_product_attention(q, keys, values, bias, scale=scale, enable_gqa=True)
    return out.transpose(1, 2).reshape(bs * n, -1)


def explicit_attention(q, keys, values, bias, layer, sinks, folded: bool) -> torch.Tensor:
    """Attention with a tanh soft cap on scores and a sink per head: [bs * n, heads * v_head_dim].

    q: [bs, n, heads, head_dim]; keys, values: [bs, kv_heads, L, dim]; bias: ``Span.bias``; sinks: [heads].
    """
    bs, n, heads, _ = q.shape
    kv_heads = keys.shape[1]
    group = heads // kv_heads
    q = q.view(bs, n, kv_heads, group, -1).permute(0, 2, 3, 1, 4).reshape(bs, kv_heads, group * n, -1)
    scores = torch.matmul(q, keys.transpose(2, 3)).float() * layer.scaling
    if layer.logit_cap > 0:
        scores = torch.tanh(scores / layer.logit_cap) * layer.logit_cap
    if bias is not None:
        scores = scores + (bias if folded or group == 1 or n == 1 else bias.repeat(1, 1, group, 1))
    if sinks is not None:
        column = sinks.float().view(1, kv_heads, group, 1, 1).expand(bs, -1, -1, n, -1)
        scores = torch.cat((scores, column.reshape(bs, kv_heads, group * n, 1)), 3)
        weights = torch.softmax(scores, 3)[..., :-1]
    else:
        weights = torch.softmax(scores, 3)
    out = torch.matmul(weights.to(values.dtype), values)
    return out.view(bs, kv_heads, group, n, -1).permute(0, 3, 1, 2, 4).reshape(bs * n, -1)
