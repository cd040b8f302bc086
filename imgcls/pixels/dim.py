"""Pictures of more than 8 bits that come out nearly black: found and said, never brightened.

Twelve bits in a file of sixteen leave 17 of 256 levels. The file does not say so, and a dark picture is no fault; so
nothing is guessed. Knows no networks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from imgcls.errors import ImageError
from imgcls.pixels.decode import Pixels, decode, depth
from imgcls.schema import Finding, Preprocess

# Of 255. 4,095 of 65,535 is level 16; bicubic and Lanczos resizing overshoot by at most a tenth.
BRIGHTEST = 18
STEP = 8  # every eighth row and column tells most pictures apart


def nearly_black(frames: Pixels, preprocess: Preprocess) -> npt.NDArray[np.bool_]:
    """Tell which network inputs, uint8 [n, S, S, 3], show nothing brighter than `BRIGHTEST` but padding: bool [n]."""
    found = _dark(frames[:, ::STEP, ::STEP], preprocess)
    found[found] = _dark(frames[found], preprocess)
    return found


def _dark(frames: Pixels, preprocess: Preprocess) -> npt.NDArray[np.bool_]:
    dark = frames <= BRIGHTEST
    if preprocess.rule == "pad":
        dark |= frames == np.array(preprocess.fill, dtype=np.uint8)
    return np.asarray(dark.all(axis=(1, 2, 3)))


def is_deep(path: str) -> bool:
    """Tell from its header whether a file has more than 8 bits per channel; False for what cannot be read."""
    try:
        return depth(path) > 8
    except ImageError:
        return False


def is_dim(path: str) -> bool:
    """Tell whether a file has more than 8 bits per channel and comes out nearly black; False if it cannot be read."""
    try:
        return is_deep(path) and int(decode(path).max()) <= BRIGHTEST
    except ImageError:
        return False


def finding(paths: Sequence[str], images: str) -> Finding:
    """Return the warning about dim files.

    Args:
        paths: of them, at least one.
        images: among how many they were found, for instance "153 images".
    """
    have, come = ("have", "come") if len(paths) > 1 else ("has", "comes")
    return Finding(
        "dim-images",
        "warning",
        f"{len(paths)} of {images} {have} more than 8 bits per channel and {come} out nearly black, "
        f"level {BRIGHTEST} of 255 at most (first: {paths[0]})",
        "if 12 bits were stored in 16, scale them to the whole range, or save 8 bits",
        tuple(paths),
    )
