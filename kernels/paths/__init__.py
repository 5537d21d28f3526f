"""What the recurrences have in common: decay along the paths of a window, and heads that share a group's entry."""
