"""The state after every node of a proposal."""
