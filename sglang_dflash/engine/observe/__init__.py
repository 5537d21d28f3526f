"""What rounds did, seen from outside: one value a round, and who takes it."""
