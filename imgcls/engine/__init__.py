"""Training and evaluation: the loop, its settings decided, metrics, run folder, and the torch back end."""
