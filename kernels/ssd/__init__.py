"""The state-space recurrence of Mamba-2 layers: ragged prefill, one step, and the nodes of a proposal."""
