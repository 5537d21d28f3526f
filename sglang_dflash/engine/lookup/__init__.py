"""Candidates from the context: where a request's last tokens stand earlier, and what followed there."""
