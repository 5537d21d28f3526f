"""The two-minute tour: real servers, plain decoding and DFLASH on the same questions."""
