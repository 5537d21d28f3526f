"""The chain: the draft's greedy token at every position of the block."""

import torch

from sglang_dflash.types import BlockInputs, Proposal


class ChainProposer:
    """Proposes [anchor, greedy draft tokens]; verify width = block size (arXiv 2602.06036, section 4)."""

    def __init__(self, block_size: int, device: torch.device):
        self.verify_width = self.path_len = block_size
        self.is_tree = False
        self._depths = torch.arange(block_size, dtype=torch.int64, device=device)

    def __call__(self, batch, block: BlockInputs, drafted: torch.Tensor) -> Proposal:
        """drafted [bs * B] int64: the head's greedy token per position -> chain of [bs, B] nodes."""
        ids = block.ids.view(-1, self.verify_width)
        # The draft pass has consumed the block's ids, so the masks make room for the drafts.
        ids[:, 1:] = drafted.view(-1, self.verify_width)[:, 1:]
        return Proposal(
            tokens=ids,
            parents=None,
            depths=self._depths,
            positions=block.positions.view(-1, self.verify_width),
            max_depth=self.verify_width - 1,
        )
