"""Soak: hours of a server's life in minutes, and whether it is as it was afterwards."""
