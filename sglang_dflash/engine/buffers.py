"""Tensors that every round writes again, so that a round allocates nothing of its own."""

import torch

from sglang_dflash.types import Acceptance, BlockInputs, Shape, empty_acceptance, empty_block_inputs

# Under overlap scheduling the host still reads round n while round n + 1 is computed.
_IN_FLIGHT = 2


class RoundBuffers:
    """Block inputs and acceptances for up to a capacity of requests; grows by doubling."""

    def __init__(self, shape: Shape, block_size: int, device: torch.device, capacity: int):
        self._shape, self._block_size, self._device = shape, block_size, device
        self._window = max(block_size, shape.width)
        self._turn = 0
        self._allocate(capacity)

    def _allocate(self, capacity: int) -> None:
        self._capacity = capacity
        self._rounds = [
            (
                empty_block_inputs(capacity, self._block_size, self._window, self._device),
                empty_acceptance(capacity, self._shape.path_len, self._device),
            )
            for _ in range(_IN_FLIGHT)
        ]

    def next(self, bs: int) -> tuple[BlockInputs, Acceptance]:
        """Views for a round of ``bs`` requests; valid until the round after the next."""
        if bs > self._capacity:
            self._allocate(max(bs, 2 * self._capacity))
        self._turn = (self._turn + 1) % _IN_FLIGHT
        block, acceptance = self._rounds[self._turn]
        tokens = bs * self._block_size
        return (
            BlockInputs(block.ids[:tokens], block.positions[:tokens], block.slots[: bs * self._window]),
            Acceptance(*(t[:bs] for t in acceptance)),
        )
