"""From a checkpoint to a file for other programs: writing, one module per format, and the proof that it agrees."""
