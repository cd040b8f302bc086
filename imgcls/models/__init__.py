"""Networks by name, with the head the data asks for, and the weights they may start from."""
