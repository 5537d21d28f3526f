"""The hash behind seeded draws, for hosts: on CUDA SGLang's own kernel computes it."""

from sglang_dflash.kernels.seeded_hash.naive import murmur_hash32

__all__ = ["murmur_hash32"]
