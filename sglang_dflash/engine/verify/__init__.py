"""One target pass over a proposal, and the target's own choice at every node."""
