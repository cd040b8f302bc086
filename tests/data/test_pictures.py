"""Pictures by index, as they are the same in every epoch, and how much memory they would take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from augmenting import augmentation as augmented
from drawing import draw_six_sizes
from PIL import Image

from imgcls.data import pictures as module
from imgcls.data.augment.recipe import Augmentation
from imgcls.data.images import FileImages
from imgcls.data.pictures import SLACK, Pictures, unreadable
from imgcls.errors import DataError
from imgcls.pixels.transform import transform
from imgcls.schema import Preprocess

SMALL, LARGE = Preprocess(size=16, resize=16), Preprocess(size=48, resize=54)
SMALL_STANDARD = augmented(SMALL, augment="standard", flip=True)
STANDARD = augmented(LARGE, augment="standard", flip=True)


@pytest.fixture
def files(tmp_path: Path) -> FileImages:
    """Six pictures of six sizes in files."""
    return draw_six_sizes(tmp_path)


@pytest.mark.parametrize("augmentation", [None, augmented(SMALL, flip=True), SMALL_STANDARD])
def test_where_nothing_is_cut_at_random_a_picture_is_the_frame_of_the_transform(
    files: FileImages, augmentation: Augmentation | None
) -> None:
    pictures = Pictures(files, SMALL, augmentation)
    assert (len(pictures), pictures.shorter) == (6, None)
    assert np.array_equal(pictures[1], transform(files.load(1), SMALL))
    assert np.array_equal(pictures[1], Pictures(files, SMALL)[1])


def test_where_boxes_are_cut_at_random_a_picture_is_large_enough_for_the_smallest(files: FileImages) -> None:
    pictures = Pictures(files, LARGE, STANDARD)
    assert pictures.shorter == 96
    for index in range(6):
        assert np.array_equal(pictures[index], files.load(index, shorter=96))
    assert [pictures[index].shape for index in (0, 5)] == [(90, 400, 3), (145, 200, 3)]
    assert Pictures(files, LARGE)[5].shape == (48, 48, 3)


def test_evaluated_pictures_are_decoded_as_the_card_says(files: FileImages) -> None:
    scaled = Preprocess(size=48, resize=54, decode="scaled")
    assert np.array_equal(Pictures(files, scaled)[5], transform(files.load(5, shorter=54), scaled))
    assert not np.array_equal(Pictures(files, scaled)[5], Pictures(files, LARGE)[5])


def test_the_size_is_known_before_anything_is_decoded(files: FileImages, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [Pictures(files, SMALL), Pictures(files, SMALL, SMALL_STANDARD), Pictures(files, LARGE, STANDARD)]
    sizes = [sum(each[index].nbytes for index in range(6)) for each in pictures]
    monkeypatch.setattr("imgcls.data.images.decode", lambda *_, **__: pytest.fail("only headers are read"))
    assert [each.bytes() for each in pictures] == sizes


def test_the_size_of_many_pictures_is_estimated_from_a_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    names = [f"{number}.png" for number in range(100)]
    for name in names:
        width, height = (int(side) for side in generator.integers(60, 400, 2))
        Image.new("RGB", (width, height)).save(tmp_path / name)
    pictures = Pictures(FileImages.of(str(tmp_path), names), LARGE, STANDARD)
    size = sum(pictures[index].nbytes for index in range(100))
    monkeypatch.setattr(module, "SAMPLED", 30)
    assert pictures.bytes() != size
    assert size / SLACK < pictures.bytes() < size * SLACK


def test_an_unreadable_image_is_an_error_of_the_data() -> None:
    error = unreadable("a/b.png: truncated")
    assert isinstance(error, DataError)
    assert str(error) == "a/b.png: truncated: replace or remove the file"
