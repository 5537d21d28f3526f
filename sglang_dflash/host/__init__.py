"""What we call of SGLang; contract.py says what is touched, why and until when."""
