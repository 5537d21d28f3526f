"""Attention of one query over one key at a time, and batches to try it on."""

import math
import random
from types import SimpleNamespace

import torch


def attend(q, keys, values, seen, scale, cap=0.0, sink=None):
    """Output [v_dim] of q [dim] over the keys [L, dim] for which seen[j] is true; plain Python arithmetic."""
    scores = []
    for j, key in enumerate(keys):
        if not seen[j]:
            continue
        score = sum(a * b for a, b in zip(q.tolist(), key.tolist(), strict=True)) * scale
        scores.append((cap * math.tanh(score / cap) if cap > 0 else score, j))
    top = max([s for s, _ in scores] + ([sink] if sink is not None else []))
    total = sum(math.exp(s - top) for s, _ in scores) + (math.exp(sink - top) if sink is not None else 0.0)
    out = torch.zeros(values.shape[1], dtype=torch.float64)
    for score, j in scores:
        out += math.exp(score - top) / total * values[j].double()
    return out


def sees(i, column, start, kv_len, causal, window, tree=None, depths=None):
    """May new token i of a request, whose new tokens begin at column ``start``, see ``column``?"""
    if column >= kv_len:
        return False
    here = start + (i if depths is None else depths[i])
    there = column if column < start or depths is None else start + depths[column - start]
    if window >= 0 and there < here - window:
        return False
    if not causal:
        return True
    if tree is None:
        return column <= start + i
    return column < start or bool(tree[i][column - start])


def random_tree(nodes: int, rng: random.Random):
    """Parents, depths and the visibility [nodes, nodes] of a random draft tree whose root is node 0."""
    parents = [-1] + [rng.randrange(i) for i in range(1, nodes)]
    depths, visibility = [0], [[False] * nodes for _ in range(nodes)]
    for i in range(1, nodes):
        depths.append(depths[parents[i]] + 1)
    for i in range(nodes):
        at = i
        while at >= 0:
            visibility[i][at] = True
            at = parents[at]
    return parents, depths, visibility


class Batch:
    """Requests with permuted slots in a pool of random rows; ``forward_batch`` is what the backend reads."""

    def __init__(self, pool, layer, prefix_lens, new_lens, seed):
        self.pool, self.layer = pool, layer
        self.prefix_lens, self.new_lens = prefix_lens, new_lens
        generator = torch.Generator().manual_seed(seed)
        slots = pool.rows[0].shape[0]
        columns = max(p + n for p, n in zip(prefix_lens, new_lens, strict=True)) + 5
        free = torch.randperm(slots, generator=generator)
        self.rows = torch.randperm(len(new_lens) + 3, generator=generator)[: len(new_lens)]
        self.table = free[: columns * (len(new_lens) + 3)].view(-1, columns).int()
        tokens = sum(new_lens)
        self.q = torch.randn(tokens, layer.tp_q_head_num * layer.qk_head_dim, generator=generator)
        self.k = torch.randn(tokens, layer.tp_k_head_num, layer.qk_head_dim, generator=generator)
        self.v = torch.randn(tokens, layer.tp_v_head_num, layer.v_head_dim, generator=generator)
        self.sinks = torch.randn(layer.tp_q_head_num, generator=generator)

    def forward_batch(self, mode: str, spec_info=None, depths=None):
        new_columns = [list(range(p, p + n)) for p, n in zip(self.prefix_lens, self.new_lens, strict=True)]
        locations = torch.cat([self.table[r, c] for r, c in zip(self.rows.tolist(), new_columns, strict=True)])
        kv_lens = [p + n for p, n in zip(self.prefix_lens, self.new_lens, strict=True)]
        steps = [depths or range(n) for n in self.new_lens]
        positions = [p + d for p, step in zip(self.prefix_lens, steps, strict=True) for d in step]
        return SimpleNamespace(
            forward_mode=SimpleNamespace(
                is_idle=lambda: False,
                is_decode=lambda: mode == "decode",
                is_target_verify=lambda: mode == "verify",
            ),
            req_pool_indices=self.rows,
            # A verify window's tokens are not part of seq_lens yet.
            seq_lens=torch.tensor(self.prefix_lens if mode == "verify" else kv_lens),
            extend_prefix_lens_cpu=self.prefix_lens,
            extend_seq_lens_cpu=self.new_lens,
            out_cache_loc=locations.long(),
            positions=torch.tensor(positions),
            spec_info=spec_info,
        )

    def expected(self, causal, window, cap, sinks, trees=None, depths=None, images=None):
        """[tokens, heads * v_dim], by ``attend``; to be called after the backend has stored k and v.

        ``images``: first and last column of each token's image, which layers with a window see besides.
        """
        layer, out, token = self.layer, [], 0
        group = layer.tp_q_head_num // layer.tp_k_head_num
        keys, values = self.pool.get_key_buffer(layer.layer_id), self.pool.get_value_buffer(layer.layer_id)
        for b, (start, n) in enumerate(zip(self.prefix_lens, self.new_lens, strict=True)):
            slots = self.table[self.rows[b], : start + n].long()
            for i in range(n):
                tree = None if trees is None else trees[b]
                seen = [sees(i, j, start, start + n, causal, window, tree, depths) for j in range(start + n)]
                if images is not None and window >= 0:
                    first, last = images[token]
                    seen = [see or (first <= j <= last and j >= start + i - window) for j, see in enumerate(seen)]
                for head in range(layer.tp_q_head_num):
                    q = self.q[token].view(layer.tp_q_head_num, -1)[head]
                    sink = float(sinks[head]) if sinks is not None else None
                    kv = head // group
                    out.append(attend(q, keys[slots, kv], values[slots, kv], seen, layer.scaling, cap, sink))
                token += 1
        return torch.cat(out).view(token, -1)
