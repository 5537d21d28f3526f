"""Measures plain decoding, SGLang's built-in DFLASH worker and ours, on servers that it starts itself."""
