"""The worker that SGLang's scheduler drives: prefill, rounds, and the state between them."""
