"""What is trained on, and how: every automatic choice with its reason."""
