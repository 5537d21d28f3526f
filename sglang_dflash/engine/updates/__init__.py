"""Updates of target and draft while serving: whose a tensor is, all or nothing, and what follows from weights."""
