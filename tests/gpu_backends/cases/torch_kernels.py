"""SGLang's attention kernels for GPUs in plain torch, with what they were called with written down.

Each takes what its kernel takes and computes what its kernel computes, so that a round whose metadata is wrong gives
wrong tokens. ``CALLS`` gets a ``Call`` per kernel: what each request's queries read, not how a table spells it.
"""

from dataclasses import dataclass, field

import torch

CALLS: list["Call"] = []


@dataclass
class Call:
    """One attention kernel: rows of queries, the slots they read, and how."""

    kernel: str
    slots: list[list[int]]  # per request, in order of position
    queries: list[tuple[int, int]]  # first and last + 1 row of each request
    options: dict  # causal, window, scale, longest lengths
    buffers: dict = field(default_factory=dict)  # name -> address, of what a captured kernel reads


def attend(q, keys, values, causal: bool, window: tuple[int, int], scale: float) -> torch.Tensor:
    """q [n, heads, dim] at the last n positions of keys, values [m, kv_heads, dim]; window: left and right, -1 none."""
    n, m = q.shape[0], keys.shape[0]
    share = q.shape[1] // keys.shape[1]
    keys, values = (value.repeat_interleave(share, 1) for value in (keys, values))
    distance = torch.arange(m)[None] - torch.arange(m - n, m)[:, None]
    seen = torch.ones(n, m, dtype=torch.bool)
    if causal:
        seen &= distance <= 0
    left, right = window
    if left >= 0:
        seen &= distance >= -left
    if right >= 0:
        seen &= distance <= right
    scores = torch.einsum("qhd,khd->hqk", q.float(), keys.float()) * scale
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, values.float()).to(q.dtype)


def over_slots(call: Call, q, key_rows, value_rows, causal, window, scale) -> torch.Tensor:
    """Attention of every request over its slots; key_rows and value_rows [slots, kv_heads, dim]."""
    CALLS.append(call)
    out = torch.zeros(q.shape[0], q.shape[1], value_rows.shape[-1], dtype=q.dtype)
    for slots, (first, end) in zip(call.slots, call.queries, strict=True):
        rows = torch.tensor(slots)
        out[first:end] = attend(q[first:end], key_rows[rows], value_rows[rows], causal, window, scale)
    return out


def page_slots(table, lens, page: int) -> list[list[int]]:
    """The slots behind pages table [bs, n], of which the first lens [bs] tokens are read."""
    out = []
    for pages, length in zip(table, lens.tolist(), strict=True):
        used = pages[: -(-length // page)].long()
        assert length <= used.numel() * page, "a table narrower than what is read"
        out.append((used[:, None] * page + torch.arange(page)).view(-1)[:length].tolist())
    return out


def _bounds(indptr) -> list[tuple[int, int]]:
    values = indptr.tolist()
    return list(zip(values[:-1], values[1:], strict=True))


def flash_attention(
    q, k_cache, v_cache, *, page_table, cache_seqlens, cu_seqlens_q, cu_seqlens_k_new, max_seqlen_q, softmax_scale,
    causal, window_size, **rest,
):  # fmt: skip
    """``flash_attn_with_kvcache`` of FlashAttention 3 and 4: caches [pages, page, kv_heads, dim]."""
    page = k_cache.shape[1]
    widths = (cu_seqlens_q[1:] - cu_seqlens_q[:-1]).tolist()
    assert max(widths) <= max_seqlen_q and cu_seqlens_q[-1] == q.shape[0], "queries beyond the kernel's grid"
    assert page_table.dtype == cache_seqlens.dtype == cu_seqlens_q.dtype == torch.int32
    call = Call(
        "flash_attention",
        page_slots(page_table, cache_seqlens, page),
        _bounds(cu_seqlens_q),
        dict(
            causal=causal,
            window=window_size,
            scale=softmax_scale,
            max_seqlen_q=max_seqlen_q,
            cu_seqlens_k=cu_seqlens_k_new.tolist(),
            **{name: rest[name] for name in ("softcap", "num_splits", "ver", "return_softmax_lse")},
        ),
        {
            name: value.data_ptr()
            for name, value in dict(page_table=page_table, cache_seqlens=cache_seqlens, cu_q=cu_seqlens_q).items()
        },
    )
    keys, values = (cache.flatten(0, 1) for cache in (k_cache, v_cache))
    return over_slots(call, q, keys, values, causal, window_size, softmax_scale)


def trtllm_decode(
    query, kv_cache, workspace_buffer, block_tables, seq_lens, max_seq_len, bmm1_scale, bmm2_scale, window_left=-1,
    q_len_per_req=1, mask=None, **rest,
):  # fmt: skip
    """``trtllm_batch_decode_with_kv_cache``: causal among a request's queries; caches [pages, kv_heads, page, dim]."""
    k_cache, v_cache = kv_cache
    page, count = k_cache.shape[2], seq_lens.numel()
    assert query.shape[0] == count * q_len_per_req, "queries of another width than their metadata"
    assert block_tables.shape[0] == count and block_tables.dtype == seq_lens.dtype == torch.int32
    if mask is not None:
        _expect_causal(mask, q_len_per_req)
    call = Call(
        "trtllm_decode",
        page_slots(block_tables, seq_lens, page),
        [(row * q_len_per_req, (row + 1) * q_len_per_req) for row in range(count)],
        dict(
            window=window_left, scale=bmm1_scale, width=q_len_per_req, max_seq_len=max_seq_len, masked=mask is not None
        ),
        {"block_tables": block_tables.data_ptr(), "seq_lens": seq_lens.data_ptr()},
    )
    keys, values = (cache.transpose(1, 2).flatten(0, 1) for cache in (k_cache, v_cache))
    return over_slots(call, query, keys, values, True, (window_left, -1), bmm1_scale)


def _expect_causal(mask: torch.Tensor, width: int) -> None:
    """XQA's mask [bs, width, words] uint16: bit j of row i says whether query i sees query j."""
    assert mask.shape[1] == width, f"a mask of {mask.shape[1]} rows for {width} queries"
    bits = (mask.int()[..., None] >> torch.arange(16)) & 1
    assert torch.equal(bits.flatten(2)[0, :, :width].bool(), torch.ones(width, width).tril().bool())


def triton_extend(
    q, k, v, o, k_buffer, v_buffer, qo_indptr, kv_indptr, kv_indices, custom_mask, is_causal, mask_indptr,
    max_len_extend, k_scale, v_scale, sm_scale, *, sliding_window_size=-1, window_kv_offsets=None, **rest,
):  # fmt: skip
    """``extend_attention_fwd``: the prefix from the pool by index, the queries' own keys and values as given."""
    assert custom_mask is None
    prefixes = [kv_indices[first:end].long() for first, end in _bounds(kv_indptr)]
    queries = _bounds(qo_indptr)
    assert max(end - first for first, end in queries) <= max_len_extend and queries[-1][1] == q.shape[0]
    call = Call(
        "triton_extend",
        [slots.tolist() for slots in prefixes],
        queries,
        dict(causal=is_causal, window=sliding_window_size, scale=sm_scale, max_len_extend=max_len_extend),
        {"qo": qo_indptr.data_ptr(), "indptr": kv_indptr.data_ptr(), "indices": kv_indices.data_ptr()},
    )
    CALLS.append(call)
    # The window reaches back from a query, and to the right as far as there is something.
    for slots, (first, end) in zip(prefixes, queries, strict=True):
        keys, values = torch.cat((k_buffer[slots], k[first:end])), torch.cat((v_buffer[slots], v[first:end]))
        o[first:end] = attend(q[first:end], keys, values, is_causal, (sliding_window_size, -1), sm_scale)


class FlashInferModule:
    """The compiled half of FlashInfer's paged wrapper: its plan is C++, of which the arguments are kept."""

    def plan(self, *arguments):
        names = (
            "float_workspace int_workspace pinned qo_indptr kv_indptr kv_lens max_rows batch_size heads kv_heads page "
            "graph dim v_dim causal window_left fixed_split_size disable_split_kv colocated uniform_q"
        ).split()
        values = dict(zip(names, arguments, strict=True))
        return {name: _plain(value) for name, value in values.items() if "workspace" not in name and name != "pinned"}


def _plain(value):
    return value.tolist() if isinstance(value, torch.Tensor) else value


def flashinfer_run(
    wrapper, q, paged_kv_cache, causal=False, sm_scale=None, window_left=-1, logits_soft_cap=None, **rest
):
    """``BatchPrefillWithPagedKVCacheWrapper.forward``: reads the wrapper's own buffers, which a graph has captured."""
    indptr, indices = wrapper._paged_kv_indptr_buf, wrapper._paged_kv_indices_buf
    assert (wrapper._paged_kv_last_page_len_buf == 1).all(), "slots are pages of one"
    queries = _bounds(wrapper._qo_indptr_buf)
    assert queries[-1][1] == q.shape[0], "queries of another width than the plan's"
    call = Call(
        "flashinfer",
        [indices[first:end].tolist() for first, end in _bounds(indptr)],
        queries,
        dict(causal=causal, window=window_left, scale=sm_scale, plan=wrapper._plan_info),
        {"indptr": indptr.data_ptr(), "indices": indices.data_ptr(), "qo": wrapper._qo_indptr_buf.data_ptr()},
    )
    keys, values = paged_kv_cache
    return over_slots(call, q, keys, values, causal, (window_left, -1), sm_scale)
