"""Choosing what chooses, once, from the options."""

import logging
import time
from collections.abc import Callable

import torch

from sglang_dflash.engine.draft_state import DraftState
from sglang_dflash.engine.lane import Lane
from sglang_dflash.engine.policy.adaptive import Adaptive
from sglang_dflash.engine.policy.costs import Costs
from sglang_dflash.engine.policy.policy import Fixed, Random
from sglang_dflash.engine.policy.probe import CONTEXT, probe
from sglang_dflash.engine.round import Round
from sglang_dflash.host.played_batch import played_batch
from sglang_dflash.types import Shape

logger = logging.getLogger(__name__)


def build_policy(
    name: str,
    lanes: dict[Shape, Lane],
    player: "Player",
    from_first: Callable,
    expect: Callable[[float, float], None],
    contexts: Callable | None,
) -> Fixed:
    """The policy ``name`` of SGLANG_DFLASH_SHAPE over the shapes that have lanes; the flags' own is the first.

    Called when rounds can be run, and before the first request: an adaptive one plays some.

    Args:
        from_first: a value -> that of tensor-parallel rank 0.
        expect, contexts: as of ``Adaptive``.
    """
    shapes = tuple(lanes)
    if name == "random":
        return Random(shapes)
    if name == "fixed":
        return Fixed(shapes[0])
    # From narrow to wide: of equals the first is taken.
    shapes = tuple(sorted(shapes, key=lambda shape: (shape.width, shape.is_tree)))
    probed = probe(player, shapes, player.most, from_first)
    for shape, points in probed.items():
        ms = ", ".join(f"{bs}: {ms:.1f}" for bs, ms in points)
        logger.info("sglang-dflash: a round of shape %s takes, by requests, ms: %s", shape.label, ms)
    return Adaptive(shapes, Costs(probed), from_first, expect, contexts)


class Player:
    """Plays rounds of requests that do not exist; what they write goes to the pools' slot for padding."""

    def __init__(self, lanes: dict[Shape, Lane], run_round: Round, target_runner):
        self._lanes, self._round, self._runner = lanes, run_round, target_runner
        self.most = int(target_runner.max_running_requests or 1)  # requests of a batch

    @torch.inference_mode()
    def __call__(self, shape: Shape, bs: int) -> float:
        """Milliseconds of one round of ``shape`` with ``bs`` requests."""
        batch = played_batch(self._runner, bs, CONTEXT)
        state = DraftState.after(torch.arange(bs, device=self._runner.device), batch.seq_lens)
        start = self._now()
        self._round(self._lanes[shape], batch, state, None)
        return (self._now() - start) * 1e3

    def _now(self) -> float:
        if torch.device(self._runner.device).type != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter()
