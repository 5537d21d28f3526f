"""Requests whose answers follow a grammar: it is led along every path of a proposal, on the host."""
