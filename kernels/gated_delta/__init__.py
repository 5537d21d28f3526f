"""The gated delta rule in torch: ragged prefill, one step, and the nodes of a proposal.

On CUDA SGLang's own kernels serve, which take parents as well.
"""
