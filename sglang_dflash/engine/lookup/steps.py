"""The draft's step of a round with what the context offers beside, or instead of, a draft pass."""

import numpy as np
import torch

from sglang_dflash.engine.draft.runner import AnchorOnly, DraftRunner
from sglang_dflash.engine.lookup.requests import Follows, RequestContexts
from sglang_dflash.kernels import continuation
from sglang_dflash.types import BlockInputs, Continuation, Drafted, Shape


class Lookup:
    """The contexts of a server's requests, and steps that look into them."""

    def __init__(self, vocab_size: int, overlap: bool, device: torch.device):
        """vocab_size: tokens that the target can be given; overlap: the host is a round behind."""
        self._contexts = RequestContexts(vocab_size)
        self._overlap, self._device = overlap, device

    def expected(self, reqs, count: int) -> list[list[float]]:
        """As ``RequestContexts.expected``; under overlap scheduling as of a round ago."""
        return self._contexts.expected(reqs, count)

    def beside(self, draft: DraftRunner | AnchorOnly, shape: Shape) -> "DraftRunner | AnchorOnly | ContextStep":
        """``draft`` with a continuation as long as proposals of ``shape`` can hold one."""
        count = shape.width - 1
        if not count:
            return draft
        return ContextStep(draft, self._contexts, count, shape.path_len if self._overlap else 0, self._device)


class ContextStep:
    """Runs a draft step and adds the context's continuation to what it says.

    The host looks for it after the draft's pass was launched, and sends it by one copy that nothing waits for. Under
    overlap scheduling it does not know what the round before emitted: it looks from where it stands, further ahead, and
    the device takes what lies behind the anchor.
    """

    def __init__(
        self, draft: DraftRunner | AnchorOnly, contexts: RequestContexts, count: int, lag: int, device: torch.device
    ):
        """count: tokens that are wanted; lag: most that the host may not know of yet, 0 without overlap scheduling."""
        self._draft, self._contexts, self._count, self._lag = draft, contexts, count, lag
        self._device = device
        self._continuation = continuation.choose(device.type)

    def __call__(self, batch, block: BlockInputs, plan, host_lens: torch.Tensor) -> Drafted:
        """As ``DraftRunner``."""
        drafted = self._draft(batch, block, plan, host_lens)
        follows = self._contexts.follows(batch.reqs, self._count + self._lag)
        if not any(found.tokens for found in follows):
            return drafted  # nothing is sent, nothing competes
        sent = self._send(pack(follows, self._count + self._lag))
        return drafted._replace(continuation=self._from_anchors(sent, drafted))

    def warm_up(self) -> None:
        """Compile what stands before the pass, and the kernel."""
        self._draft.warm_up()
        zero = torch.zeros(1, 1, dtype=torch.int64, device=self._device)
        self._from_anchors(self._send(pack([Follows(1, [], [])], self._count + self._lag)), Drafted(zero, zero))

    def _send(self, packed: torch.Tensor) -> torch.Tensor:
        if self._device.type == "cpu":
            return packed
        return packed.pin_memory().to(self._device, non_blocking=True)

    def _from_anchors(self, packed: torch.Tensor, drafted: Drafted) -> Continuation:
        if not self._lag:
            return Continuation(packed[:, 1 : 1 + self._count], packed[:, 1 + self._count :].view(torch.float64))
        return self._continuation(packed, drafted.tokens[:, 0], drafted.positions[:, 0], self._count)


def pack(follows: list[Follows], width: int) -> torch.Tensor:
    """-> [bs, 1 + 2 * width] int64 on the host, as ``kernels.continuation`` reads it."""
    packed = np.zeros((len(follows), 1 + 2 * width), dtype=np.int64)
    log_chances = packed[:, 1 + width :].view(np.float64)
    log_chances[:] = -np.inf
    for row, found in enumerate(follows):
        packed[row, 0] = found.known
        packed[row, 1 : 1 + len(found.tokens)] = found.tokens
        log_chances[row, : len(found.tokens)] = found.log_chances
    return torch.from_numpy(packed)
