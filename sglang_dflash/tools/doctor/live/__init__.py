"""A pair at work: served, replayed against the batch-1 reference, and with its wiring varied."""
