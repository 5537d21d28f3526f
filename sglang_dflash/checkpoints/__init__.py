"""What is known of target and draft checkpoints: reading their configs, the rules for a pair, the published ones."""
