"""Recurrent layers of hybrid models on a host CPU."""
