"""One exact draw per row of filtered logits, with the uniform numbers as an argument.

There is no Triton version: a served round samples with SGLang's own sampler, so that seeds, custom
processors and filters mean there what they mean in plain decoding. This op states the same
distribution and is what the tests of the accept rule enumerate.
"""

from sglang_dflash.kernels.sample_rows.naive import filtered_probs, sample_rows

__all__ = ["filtered_probs", "sample_rows"]
