"""What SGLang returns of a request beside its tokens: log-probabilities and hidden states."""

import torch
from sglang.srt.layers.logits_processor import LogitsProcessor
from sglang.srt.layers.logprob_processor import compute_spec_logprobs
from sglang.srt.model_executor.forward_batch_info import CaptureHiddenMode, get_server_return_hidden_states_mode

from sglang_dflash.host.contract import Touch

_REPORTS = "a public interface for out-of-tree speculative workers"
TOUCHES = (
    Touch(
        "sglang.srt.layers.logprob_processor:compute_spec_logprobs",
        "log-probabilities of emitted tokens, as SGLang's own speculative workers report them",
        _REPORTS,
        ("batch", "logits_output", "predict", "chain_stride"),
    ),
    Touch(
        "sglang.srt.layers.logits_processor:LogitsProcessor",
        "asked to keep the last layer's states beside those that the draft reads",
        _REPORTS,
        attributes=("keep_last_hidden_states",),
    ),
    Touch(
        "sglang.srt.layers.logits_processor:LogitsProcessorOutput",
        "where SGLang's output processing finds both",
        _REPORTS,
        ("next_token_logits", "hidden_states", "last_hidden_states"),
    ),
    Touch(
        "sglang.srt.model_executor.forward_batch_info:get_server_return_hidden_states_mode",
        "which hidden states requests may ask for",
        _REPORTS,
    ),
)


def keep_last_hidden_states(target: torch.nn.Module) -> None:
    """Have ``target``'s passes return the last layer's states, where requests may ask for them.

    Called before graphs are captured.
    """
    if get_server_return_hidden_states_mode() != CaptureHiddenMode.NULL:
        for module in target.modules():
            if isinstance(module, LogitsProcessor):
                module.keep_last_hidden_states = True


def add_log_probs(batch, output, logits: torch.Tensor, tokens: torch.Tensor) -> None:
    """Add to ``output`` the log-probabilities that ``batch``'s requests ask for.

    logits [bs * D, V], as they were chosen from, before temperature: row d of a request gave its token d.
    tokens [bs, D], of which the host will read those that were emitted.
    """
    output.next_token_logits = logits
    compute_spec_logprobs(batch, output, tokens.view(-1), chain_stride=tokens.shape[1])


def wanted_of_prefill(batch, states: torch.Tensor) -> torch.Tensor:
    """Of states [tokens, hidden] of a prefill those that SGLang's output processing expects: all, or the last ones'."""
    if max(batch.return_hidden_states_mode, get_server_return_hidden_states_mode()).is_full():
        return states
    ends = torch.tensor(batch.extend_lens, dtype=torch.int64).cumsum(0) - 1
    return states[ends.to(states.device)]
