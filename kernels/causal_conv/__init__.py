"""The short causal convolution before a recurrent layer: ragged prefill, one step, and the nodes of a proposal."""
