"""Learning: an epoch is a row of optimizer steps."""
