"""What folders are called that are splits: the one table of names."""

from __future__ import annotations

import re

# What splits are called, alone or with an ending; case, "_", "-" and blanks do not count: Training_Set is train+set.
# Not "eval" and "evaluation": some mean validation by them and some the test.
SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


SPLIT_ENDINGS = ("", "set", "data", "images")


SPLIT_NAMES = {
    word + ending: split for split, words in SPLIT_WORDS.items() for word in words for ending in SPLIT_ENDINGS
}


def split_of(name: str) -> str | None:
    """Return "train", "val" or "test" when a folder is called like one; None otherwise."""
    return SPLIT_NAMES.get(re.sub("[-_ ]", "", name.casefold()))
