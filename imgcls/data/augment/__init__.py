"""Random changes to training images: one operation a file, and in `recipe` the list of them."""
