"""What serves: the worker that SGLang's scheduler drives, and the steps of a round."""
