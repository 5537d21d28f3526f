"""What requests want to know of emitted tokens: log-probabilities, hidden states, what else could have been chosen."""

import torch

from sglang_dflash.errors import DFlashError
from sglang_dflash.host.reports_api import add_log_probs
from sglang_dflash.host.support_api import emitted_masks, greedy_masks, wants_masks
from sglang_dflash.types import Acceptance, Proposal


def report(batch, output, logits: torch.Tensor | None, masks, proposal: Proposal, accepted: Acceptance) -> None:
    """Add what ``batch`` asks for to the verify pass's ``output``: D rows a request, one for each emitted token.

    logits [bs * W, V]: whole, and as they were chosen from; needed for log-probabilities only. masks: of all nodes,
    from the sampler; None where the batch is greedy. Rows beyond what was emitted hold nothing of meaning.
    """
    info, width = batch.sampling_info, proposal.tokens.shape[1]
    if wants_masks(info):
        output.sampling_mask_output = (
            greedy_masks(info, accepted) if masks is None else emitted_masks(info, masks, accepted, width)
        )
    if batch.return_logprob:
        assert logits is not None  # the choice has kept them
        rows = logits if proposal.parents is None else logits[_rows(accepted, proposal)]
        add_log_probs(batch, output, rows, accepted.emitted)
    if batch.return_hidden_states:
        states = output.last_hidden_states
        if states is None:
            raise DFlashError("target", "returned no hidden states", "use a target class that captures DFlash layers")
        # A copy: the host reads it while the next pass writes the graph's own.
        output.hidden_states = states[_rows(accepted, proposal)]


def _rows(accepted: Acceptance, proposal: Proposal) -> torch.Tensor:
    """[bs * D] int64: where the node of each depth of the accepted path stands among all nodes."""
    bs, width = proposal.tokens.shape
    first = torch.arange(0, bs * width, width, device=accepted.path.device).unsqueeze(1)
    return (accepted.path.clamp(min=0) + first).view(-1)
