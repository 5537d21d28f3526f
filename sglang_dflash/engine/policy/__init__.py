"""Which shape the next round has."""
