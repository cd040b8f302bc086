"""The truth about accuracy: validation and evaluation."""
