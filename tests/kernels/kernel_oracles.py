"""Each op once more, in plain Python over lists: slow, obvious, and sharing nothing with the twins."""

import math


def prepare_block(bonus, prefix_lens, rows, req_to_token, mask_token_id, block_size, window):
    """-> ids, positions, slots as flat lists."""
    ids, positions, slots = [], [], []
    for request in range(len(bonus)):
        for step in range(block_size):
            ids.append(bonus[request] if step == 0 else mask_token_id)
            positions.append(prefix_lens[request] + step)
        for step in range(window):
            slots.append(req_to_token[rows[request]][prefix_lens[request] + step])
    return ids, positions, slots


def window_row(row, prefix, window, page, block):
    """One request: its slots -> the visible ones and the block's, and how many are context."""
    start = max(0, prefix - window)
    while start % page:
        start -= 1
    return row[start : prefix + block], prefix - start


def accept(tokens, target_tokens, parents):
    """One request -> (path, bonus); ``parents`` None for a chain."""
    if parents is None:
        parents = [i - 1 for i in range(len(tokens))]
    path = [0]
    while True:
        wanted = target_tokens[path[-1]]
        for node in range(1, len(tokens)):
            if parents[node] == path[-1] and tokens[node] == wanted:
                path.append(node)
                break
        else:
            return path, wanted


def visibility(parents):
    """One request -> rows of booleans."""
    rows = []
    for node in range(len(parents)):
        seen = {node}
        at = node
        while parents[at] >= 0:
            at = parents[at]
            seen.add(at)
        rows.append([column in seen for column in range(len(parents))])
    return rows


def links(parents):
    """One request -> first child and next sibling of every node, -1 where there is none."""
    child, sibling, last = [-1] * len(parents), [-1] * len(parents), {}
    for node, parent in enumerate(parents):
        if parent < 0:
            continue
        if parent in last:
            sibling[last[parent]] = node
        else:
            child[parent] = node
        last[parent] = node
    return child, sibling


def flat_mask(parents, prefix):
    """One request -> its part of the flat mask, node after node."""
    return [cell for row in visibility(parents) for cell in [True] * prefix + row]


def compact(rows_by_slot, path, commit_len, window_slots):
    """One request: dict slot -> row, changed in place."""
    moved = [rows_by_slot[window_slots[path[d]]] for d in range(commit_len)]
    for d in range(commit_len):
        rows_by_slot[window_slots[d]] = moved[d]


def convolve(block, dynamic, base, groups):
    """One block of rows of floats, each token's kernel flat as (tap, group), base as (tap, channel) -> rows."""
    width, out = len(block[0]), []
    for token in range(len(block)):
        row = [0.0] * width
        for tap in range(min(len(base), token + 1)):
            for channel in range(width):
                group = channel // (width // groups)
                kernel = base[tap][channel] + dynamic[token][tap * groups + group]
                row[channel] += kernel * block[token - tap][channel]
        out.append(row)
    return out


def selected_path(anchor, candidates, logits, weights, predecessors, successors, multiplier, cap):
    """One request -> its tokens, the anchor first."""
    tokens = [anchor]
    for position, row in enumerate(candidates):
        before = [a * w for a, w in zip(predecessors[tokens[-1]], weights[position], strict=True)]
        scores = []
        for candidate, logit in zip(row, logits[position], strict=True):
            logit *= multiplier
            logit = logit if cap is None else cap * math.tanh(logit / cap)
            scores.append(logit + sum(a * b for a, b in zip(before, successors[candidate], strict=True)))
        tokens.append(row[scores.index(max(scores))])
    return tokens


def cached_key(key, position, norm_weight, eps, cos_sin, interleaved):
    """One head of one token as floats -> the key that belongs in the cache."""
    if norm_weight is not None:
        rms = math.sqrt(sum(x * x for x in key) / len(key) + eps)
        key = [x / rms * w for x, w in zip(key, norm_weight, strict=True)]
    half = len(cos_sin[position]) // 2
    out = list(key)
    for i in range(half):
        first, second = (2 * i, 2 * i + 1) if interleaved else (i, i + half)
        cos, sin = cos_sin[position][i], cos_sin[position][half + i]
        out[first] = key[first] * cos - key[second] * sin
        out[second] = key[second] * cos + key[first] * sin
    return out


def murmur3(data, seed=0):
    """MurmurHash3_x86_32 of bytes whose number is a multiple of four, as published."""
    state = seed
    for start in range(0, len(data), 4):
        word = int.from_bytes(data[start : start + 4], "little") * 0xCC9E2D51 % 2**32
        word = (word << 15 | word >> 17) % 2**32 * 0x1B873593 % 2**32
        state ^= word
        state = ((state << 13 | state >> 19) % 2**32 * 5 + 0xE6546B64) % 2**32
    state ^= len(data)
    state = (state ^ state >> 16) * 0x85EBCA6B % 2**32
    state = (state ^ state >> 13) * 0xC2B2AE35 % 2**32
    return state ^ state >> 16


def seeded_hash(seed, position, column):
    """What SGLang hashes for one cell: 8 bytes of seed, 4 of position, 4 of column."""
    return murmur3((seed % 2**64).to_bytes(8, "little") + position.to_bytes(4, "little") + column.to_bytes(4, "little"))
