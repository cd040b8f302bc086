"""The drawn data set: what it holds, that a seed decides it, and that its shapes can be told apart."""

from __future__ import annotations

import colorsys
import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgcls.data import sample
from imgcls.data.sample import HUE_RANGE, SHAPES, SIDE, SPLITS, draw, picture
from imgcls.data.splits import for_training
from imgcls.errors import Exit, UsageError, WriteError


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw 4 + 2 + 2 pictures of each shape."""
    monkeypatch.setattr(sample, "SPLITS", {"train": 4, "val": 2, "test": 2})


def contents(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*.png")}


@pytest.mark.usefixtures("few")
def test_it_is_a_data_set_to_train_on(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "shapes"
    assert draw(str(folder)) == {"train": 20, "val": 10, "test": 10}
    splits = for_training(str(folder), val_split=0.2, seed=0)
    assert splits.classes == tuple(sorted(SHAPES)) == tuple(SHAPES)
    assert splits.train.counts().tolist() == [4] * 5
    assert splits.val is not None
    assert splits.val.counts().tolist() == [2] * 5
    assert splits.findings == ()
    picture_ = splits.train.images.load(0)
    assert picture_.shape == (SIDE, SIDE, 3)


def test_the_whole_of_it_is_said_beforehand() -> None:
    assert SPLITS == {"train": 120, "val": 30, "test": 30}


@pytest.mark.usefixtures("few")
def test_the_seed_decides_every_byte(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        draw(str(tmp_path / name), seed)
    first, second, third = (contents(tmp_path / name) for name in "abc")
    assert first == second
    assert first.keys() == third.keys()
    assert not set(first.values()) & set(third.values())


@pytest.mark.usefixtures("few")
def test_no_picture_is_there_twice(tmp_path: Path) -> None:
    draw(str(tmp_path / "shapes"))
    found = contents(tmp_path / "shapes")
    assert len(set(found.values())) == len(found) == 40


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_shows_its_hue_on_part_of_the_picture(shape: str) -> None:
    for seed in range(5):
        pixels = np.asarray(picture(shape, np.random.default_rng(seed)))
        hsv = np.asarray(Image.fromarray(pixels).convert("HSV")).astype(float)
        degrees = hsv[..., 0] / 255 * 360
        away = np.abs((degrees - SHAPES[shape] + 180) % 360 - 180)
        shown = (away < 4 * HUE_RANGE) & (hsv[..., 1] > 100)
        assert 0.02 < shown.mean() < 0.7


def test_the_hues_are_far_apart() -> None:
    hues = sorted(SHAPES.values())
    gaps = [(after - before) % 360 for before, after in zip(hues, [*hues[1:], hues[0]], strict=True)]
    assert min(gaps) > 4 * HUE_RANGE
    assert colorsys.hsv_to_rgb(SHAPES["square"] / 360, 1, 1) == (1, 0, 0)


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty; name a new folder") as caught:
        draw(str(tmp_path))
    assert caught.value.exit_code == Exit.USAGE
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(WriteError):
        draw(str(tmp_path / "mine.txt"))


@pytest.mark.usefixtures("few")
def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    assert draw(str(tmp_path))["train"] == 20
