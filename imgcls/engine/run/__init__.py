"""A run: its folder, history, header and diagnosis, and going on with it."""
