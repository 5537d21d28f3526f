"""Fuzz: random requests that mix everything a server can be asked for, on two servers, compared."""
