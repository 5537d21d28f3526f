"""MurmurHash3 (x86, 32 bits; Austin Appleby, public domain) of (seed, position, column), vectorised.

SGLang 0.5.23 turns it into the noise of a seeded draw; equal hashes make a seed mean the same everywhere.
"""

import torch

MASK = 0xFFFFFFFF
LENGTH = 16  # hashed bytes: the seed's 8, 4 of the position, 4 of the column


def murmur_hash32(seed: torch.Tensor, positions: torch.Tensor, col_indices: torch.Tensor) -> torch.Tensor:
    """Hashes [rows, columns] as int64 values below 2**32.

    seed [rows] uint64 or int64, positions [rows] and col_indices [columns] of any integer type. Products of
    32-bit values wrap around in int64, which leaves the low 32 bits right.
    """
    seed = seed.view(torch.int64)
    state = torch.zeros_like(seed)
    for word in (seed & MASK, (seed >> 32) & MASK, positions.long() & MASK):
        state = _mix(state, _scramble(word))
    state = _mix(state.unsqueeze(1), _scramble(col_indices.long() & MASK))
    state ^= LENGTH
    state ^= state >> 16
    state = (state * 0x85EBCA6B) & MASK
    state ^= state >> 13
    state = (state * 0xC2B2AE35) & MASK
    return state ^ (state >> 16)


def _rotate(x: torch.Tensor, bits: int) -> torch.Tensor:
    return ((x << bits) | (x >> (32 - bits))) & MASK


def _scramble(word: torch.Tensor) -> torch.Tensor:
    return (_rotate((word * 0xCC9E2D51) & MASK, 15) * 0x1B873593) & MASK


def _mix(state: torch.Tensor, scrambled: torch.Tensor) -> torch.Tensor:
    return (_rotate(state ^ scrambled, 13) * 5 + 0xE6546B64) & MASK
