"""`strong` covers all changes of TrivialAugment, at all strengths."""

from __future__ import annotations

import numpy as np
import pytest
from augmenting import SMALL, augment, augmentation, photo, still
from PIL import Image


@pytest.mark.parametrize("change", range(14))
def test_strong_covers_all_changes_of_trivial_augment(change: int) -> None:
    """Each acts, without an error at any strength of either sign."""
    noise = np.random.default_rng(0).integers(-20, 20, (32, 32, 3))  # for sharpness to act on
    dull = Image.fromarray((np.asarray(photo()) // 2 + 40 + noise).astype(np.uint8))  # for auto-contrast to have room
    results, strong = set(), augmentation(SMALL, augment="strong")
    for strength in np.linspace(0, 1 - 1e-9, 31):
        for sign in (0.1, 0.9):
            draws = still(trivial_augment=[(change + 0.5) / 14, strength, sign])
            pixels = augment(dull, SMALL, strong, draws)
            assert pixels.shape == (32, 32, 3)
            results.add(pixels.tobytes())
    assert change == 0 or results != {np.asarray(dull).tobytes()}
    expected = {0: 1, 10: 7, 11: 15, 12: 1, 13: 1}.get(change, 50)
    assert len(results) >= expected
