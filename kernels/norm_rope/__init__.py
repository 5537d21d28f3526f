"""RMS norm over each head and rotary embedding: what cached keys and a block's queries and keys go through alike."""
