"""Torch twins of SGLang's Triton helpers that write and read rows of the slot table.

The slot table ``req_to_token`` is [rows, columns] int32: column j of a request's row holds the KV slot of its
token j. All functions are batched; none loops over requests.
"""

import torch


def write_row_spans(req_pool_indices, req_to_token, start_offset, end_offset, out_cache_loc, batch_size) -> None:
    """Write ``out_cache_loc`` into columns [start, end) of each request's row.

    req_pool_indices, start_offset, end_offset: [bs] int; out_cache_loc: [sum(end - start)] int.
    """
    rows, columns = _spans(req_pool_indices, start_offset, end_offset)
    req_to_token[rows, columns] = out_cache_loc[: columns.shape[0]].to(req_to_token.dtype)


def _spans(rows, start, end) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column of every entry of the spans: two [sum(end - start)] int64."""
    start = start.long()
    lengths = end.long() - start
    before = torch.cumsum(lengths, 0) - lengths
    which = torch.repeat_interleave(lengths)  # request of each entry
    columns = torch.arange(which.shape[0]) + (start - before).index_select(0, which)
    return rows.long().index_select(0, which), columns


def write_extend_rows(
    out_cache_loc,
    req_pool_indices_tensor,
    req_pool_indices_cpu,
    prefix_lens_tensor,
    prefix_lens_cpu,
    seq_lens_tensor,
    seq_lens_cpu,
    extend_lens_tensor,
    extend_lens_cpu,
    prefix_tensors,
    req_to_token_pool,
) -> None:
    """Write each request's row at prefill: its cached prefix's slots, then the new tokens' slots."""
    table = req_to_token_pool.req_to_token
    bs = len(prefix_tensors)
    zero = torch.zeros_like(prefix_lens_tensor)
    write_row_spans(req_pool_indices_tensor, table, zero, prefix_lens_tensor, torch.cat(prefix_tensors), bs)
    write_row_spans(req_pool_indices_tensor, table, prefix_lens_tensor, seq_lens_tensor, out_cache_loc, bs)


def last_slots(req_to_token, req_pool_indices_tensor, prefix_lens_tensor) -> torch.Tensor:
    """Slot of each request's last prefix token, -1 where it has none: [bs], the lengths' dtype."""
    prefix = prefix_lens_tensor
    found = req_to_token[req_pool_indices_tensor, (prefix - 1).clamp_min(0)].to(prefix.dtype)
    return found.masked_fill(prefix <= 0, -1)


def window_slots(*, req_pool_indices, req_to_token, start_offset, end_offset, batch_size, draft_token_num, device):
    """Slots of ``draft_token_num`` columns from start on of each request's row: [bs * columns] int64."""
    columns = start_offset.long()[:, None] + torch.arange(draft_token_num)
    return req_to_token[req_pool_indices[:, None], columns].reshape(-1).long()


def pack_front_slots(num_front, out_cache_loc, front_out_cache_loc) -> None:
    """Pack the first ``num_front[i]`` slots of request i's window at the front of ``front_out_cache_loc``.

    num_front: [bs] int; out_cache_loc: [bs * width] int; front_out_cache_loc: its tail is left as it is.
    """
    window = out_cache_loc.view(num_front.numel(), -1)
    kept = window[torch.arange(window.shape[1]) < num_front[:, None]]
    front_out_cache_loc[: kept.shape[0]] = kept.to(front_out_cache_loc.dtype)
