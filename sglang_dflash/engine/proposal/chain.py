"""The chain: the draft's best token at every position of the block, as far as it is to be verified."""

from sglang_dflash.types import Drafted, Proposal, Shape


class ChainProposer:
    """Proposes [anchor, the first W - 1 drafts] (arXiv 2602.06036, section 4)."""

    candidates = 0

    def __init__(self, width: int):
        self.shape = Shape.chain(width)

    def __call__(self, drafted: Drafted) -> Proposal:
        """-> chain of [bs, W] nodes; the draft's own tensors where W is the block size."""
        width = self.shape.width
        return Proposal(
            tokens=drafted.tokens[:, :width].contiguous(),
            parents=None,
            positions=drafted.positions[:, :width].contiguous(),
        )
