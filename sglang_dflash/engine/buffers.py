"""Tensors that every round writes again, so that a round allocates nothing of its own."""

import torch

from sglang_dflash.types import Acceptance, BlockInputs, empty_acceptance, empty_block_inputs

# Under overlap scheduling the host still reads round n while round n + 1 is computed.
_IN_FLIGHT = 2


class RoundBuffers:
    """Block inputs and acceptances for up to a capacity of requests; grows by doubling."""

    def __init__(self, block_size: int, path_len: int, device: torch.device, capacity: int):
        self._block_size, self._path_len, self._device = block_size, path_len, device
        self._turn = 0
        self._allocate(capacity)

    def _allocate(self, capacity: int) -> None:
        self._capacity = capacity
        self._blocks = [empty_block_inputs(capacity * self._block_size, self._device) for _ in range(_IN_FLIGHT)]
        self._acceptances = [empty_acceptance(capacity, self._path_len, self._device) for _ in range(_IN_FLIGHT)]

    def next(self, bs: int) -> tuple[BlockInputs, Acceptance]:
        """Views for a round of ``bs`` requests; valid until the round after the next."""
        if bs > self._capacity:
            self._allocate(max(bs, 2 * self._capacity))
        self._turn = (self._turn + 1) % _IN_FLIGHT
        block, acceptance = self._blocks[self._turn], self._acceptances[self._turn]
        return (
            BlockInputs(*(t[: bs * self._block_size] for t in block)),
            Acceptance(*(t[:bs] for t in acceptance)),
        )
