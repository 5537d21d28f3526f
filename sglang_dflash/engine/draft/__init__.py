"""The draft: its model class, its head over the target's vocabulary, and what it sees of the context."""
