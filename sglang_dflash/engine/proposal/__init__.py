"""From the draft's hidden states to what the target verifies."""
