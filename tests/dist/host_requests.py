"""SGLang's requests and batches, as far as the rules of a node look at them."""

from array import array
from types import SimpleNamespace

import torch
from sglang.srt.sampling.sampling_params import SamplingParams


class Request:
    """A request that has emitted ``output``; may be followed weakly, as SGLang's own."""

    def __init__(self, prompt, output=(), eos=(), **sampling):
        self.origin_input_ids, self.output_ids = array("q", prompt), array("q", output)
        self.sampling_params = SamplingParams(**sampling)
        self.eos_token_ids, self.tokenizer = set(eos), None
        self.rid = str(id(self))

    @property
    def prefix_len(self) -> int:
        """Tokens before the anchor."""
        return len(self.origin_input_ids) + len(self.output_ids) - 1


def batch_of(requests, **more) -> SimpleNamespace:
    """A decoding batch in which every rule is wanted."""
    fields = {"logit_bias": None, "acc_additive_penalties": (), "acc_scaling_penalties": None}
    fields["has_custom_logit_processor"] = False
    return SimpleNamespace(
        reqs=list(requests),
        decoding_reqs=None,
        seq_lens=torch.tensor([req.prefix_len for req in requests]),
        sampling_info=SimpleNamespace(**fields),
        **more,
    )
