"""What surrounds serving: starting servers, measuring, checking, showing, training."""
