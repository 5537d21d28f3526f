"""The draft's context: the target's hidden states, fused and injected as K and V into every draft layer."""
