"""One image in four is partly covered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from augmenting import SMALL, augmentation, drawn, photo, still


def test_one_image_in_four_is_erased_by_the_mean_colour_within_bounds() -> None:
    strange = replace(SMALL, mean=(0.9, 0.1, 0.7))
    strong, images = augmentation(strange, augment="strong"), torch.from_numpy(np.stack([np.asarray(photo())] * 800))
    draws = {name: np.repeat(values, 800, axis=0) for name, values in still().items()}
    erased = strong.vary(images.clone(), draws | {"erasing": drawn(strong, 800)["erasing"]}).numpy()
    covered = (erased == strange.fill).all(axis=3)
    assert np.array_equal(erased[~covered], images.numpy()[~covered])
    shares = covered.mean(axis=(1, 2))
    assert (shares > 0).mean() == pytest.approx(0.25, abs=0.05)
    assert shares[shares > 0].min() < 0.05
    assert shares.max() == pytest.approx(0.33, abs=0.04)
