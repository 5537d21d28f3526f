"""How the target's backends are told the shape of a tree."""

import torch

from sglang_dflash.host.tree_api import MaskReader, allow_trees, expect_trees, on_own_platform
from sglang_dflash.host.worker_api import DFlashVerifyInput
from sglang_dflash.kernels import tree_links, tree_mask, visibility
from sglang_dflash.types import Proposal


def build_tree_form(target_runner) -> "PlainTree | MaskedTree":
    """The form that the target's backends take; called before its pools are made.

    Raises:
        DFlashError: the target cannot verify trees on this device.
    """
    device = torch.device(target_runner.device)
    if on_own_platform():
        return PlainTree(device)
    allow_trees(target_runner)
    return MaskedTree(device, target_runner.model_config.context_len)


class PlainTree:
    """For the CPU platform's backends, which take parents and visibility as they are."""

    def __init__(self, device: torch.device):
        self._visibility = visibility.choose(device.type)

    def prepare(self, attn_backend) -> None:
        """Nothing: any backend of the platform takes trees."""

    def __call__(
        self, verify_input: DFlashVerifyInput, proposal: Proposal, prefix_lens: torch.Tensor, host_lens: torch.Tensor
    ) -> None:
        """Add the shape of ``proposal`` to ``verify_input``."""
        verify_input.parents = proposal.parents
        verify_input.visibility = self._visibility(proposal.parents)


class MaskedTree:
    """For SGLang's backends: attention takes a flat mask over context and nodes, recurrent layers take links.

    Its buffers are made once and grow with the batch: every round overwrites them, in stream order. Batches that
    graphs serve are written where the graphs read.
    """

    def __init__(self, device: torch.device, context_len: int):
        """context_len: the longest context that a request can reach."""
        self._device, self._context_len = device, context_len
        self._visibility = visibility.choose(device.type)
        self._links = tree_links.choose(device.type)
        self._flat_mask = tree_mask.choose(device.type)
        self._reader: MaskReader  # from prepare on
        self._mask = torch.empty(0, dtype=torch.bool, device=device)
        self._nodes = torch.empty(2, 0, 0, dtype=torch.int32, device=device)
        self._seen = torch.empty(0, 0, 0, dtype=torch.bool, device=device)

    def prepare(self, attn_backend) -> None:
        """Set the target's backends up, once they exist; DFlashError where one takes no trees."""
        self._reader = expect_trees(attn_backend)

    def __call__(
        self, verify_input: DFlashVerifyInput, proposal: Proposal, prefix_lens: torch.Tensor, host_lens: torch.Tensor
    ) -> None:
        """Add ``custom_mask`` and links to ``verify_input``; host_lens [bs]: upper bounds of prefix + W."""
        assert proposal.parents is not None  # a tree has them
        bs, width = proposal.parents.shape
        mask = self._mask_of(width * int(host_lens.clamp(max=self._context_len + width).sum()))
        if self._nodes.shape[1] < bs or self._nodes.shape[2] != width:
            self._nodes = torch.empty(2, 2 * bs, width, dtype=torch.int32, device=self._device)
            self._seen = torch.empty(2 * bs, width, width, dtype=torch.bool, device=self._device)
        children, siblings = self._nodes[:, :bs]
        self._links(proposal.parents, children, siblings)
        seen = self._visibility(proposal.parents, self._seen[:bs])
        self._flat_mask(seen, prefix_lens, mask, self._reader.reads_context)
        verify_input.custom_mask = mask
        verify_input.retrieve_next_token, verify_input.retrieve_next_sibling = children, siblings

    def _mask_of(self, size: int) -> torch.Tensor:
        """[size] bytes: of the graphs' own mask where they fit, which then is not copied to."""
        graphs = self._reader.mask_of_graphs()
        if graphs is not None and graphs.numel() >= size:
            return graphs[:size]
        if self._mask.numel() < size:
            # Contexts grow by a few tokens a round.
            self._mask = torch.empty(size + size // 4, dtype=torch.bool, device=self._device)
        return self._mask[:size]
