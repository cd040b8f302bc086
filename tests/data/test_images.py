"""Pictures by index, from files and from arrays: same questions, same kind of answers."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
import pytest
from drawing import draw_tree
from PIL import Image

from imgcls.data.images import ArrayImages, FileImages, Images
from imgcls.errors import ImageError

NAMES = ["cat/000.png", "cat/001.png", "dog/000.png"]


@pytest.fixture
def files(tmp_path: Path) -> FileImages:
    return FileImages.of(str(draw_tree(tmp_path, {"cat": 2, "dog": 1}, size=(9, 5))), NAMES)


@pytest.fixture
def arrays() -> ArrayImages:
    return ArrayImages.of("train", np.random.default_rng(0).integers(0, 256, (4, 5, 9, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["files", "arrays"])
def test_both_kinds_answer_alike(kind: str, request: pytest.FixtureRequest) -> None:
    images: Images = request.getfixturevalue(kind)
    assert images.size(1) == (9, 5)
    assert images.load(1).shape == (5, 9, 3)
    part = images.take(np.array([2, 0]))
    assert len(part) == 2
    assert part.name(1) == images.name(0)
    assert np.array_equal(part.load(0), images.load(2))
    assert len(images.take(np.empty(0, dtype=np.int64))) == 0


def test_names_say_where_a_picture_comes_from(files: FileImages, arrays: ArrayImages) -> None:
    assert [files.name(index) for index in range(3)] == NAMES
    assert arrays.take(np.array([3])).name(0) == "train/000003"


def test_arrays_are_shared_and_not_copied(arrays: ArrayImages) -> None:
    assert arrays.take(np.array([1])).pixels is arrays.pixels
    assert np.array_equal(arrays.load(2), arrays.pixels[2])


def test_grey_arrays_become_rgb() -> None:
    grey = ArrayImages.of("train", np.full((1, 4, 6), 77, dtype=np.uint8))
    assert grey.load(0).tolist() == [[[77] * 3] * 6] * 4
    assert grey.size(0) == (6, 4)


def test_a_damaged_file_is_named(files: FileImages) -> None:
    path = Path(files.path(1))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ImageError, match=r"cat/001\.png: "):
        files.load(1)


def test_names_that_are_not_utf8_are_kept(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    Image.new("RGB", (3, 3)).save(tmp_path / name)
    files = FileImages.of(str(tmp_path), [name])
    assert files.name(0) == name
    assert files.load(0).shape == (3, 3, 3)
    assert len(files.fingerprint()) == 16


def test_the_fingerprint_does_not_follow_the_file_systems_order(files: FileImages) -> None:
    assert FileImages.of(files.root, NAMES[::-1]).fingerprint() == files.fingerprint()


def test_the_fingerprint_follows_names_and_sizes(files: FileImages, tmp_path: Path) -> None:
    before = files.fingerprint()
    assert len(before) == 16
    content = (tmp_path / "cat/000.png").read_bytes()
    assert FileImages.of(files.root, NAMES[:2]).fingerprint() != before
    (tmp_path / "cat/000.png").write_bytes(content + b"x")
    assert files.fingerprint() != before
    (tmp_path / "cat/000.png").write_bytes(content)
    assert files.fingerprint() == before
    (tmp_path / "cat/000.png").rename(tmp_path / "cat/other.png")
    assert FileImages.of(files.root, ["cat/other.png", *NAMES[1:]]).fingerprint() != before


def test_the_fingerprint_of_a_dataset_does_not_follow_where_it_lies(files: FileImages, tmp_path: Path) -> None:
    before = files.fingerprint()
    moved = tmp_path.with_name(tmp_path.name + "-moved")
    tmp_path.rename(moved)
    assert FileImages.of(str(moved), NAMES).fingerprint() == before
    moved.rename(tmp_path)


def test_the_fingerprint_of_arrays_follows_pixels_and_selection(arrays: ArrayImages) -> None:
    before = arrays.fingerprint()
    assert arrays.take(np.array([0, 1])).fingerprint() != before
    changed = arrays.pixels.copy()
    changed[3, 0, 0, 0] ^= 1
    assert ArrayImages.of("train", changed).fingerprint() != before
    assert ArrayImages.of("train", arrays.pixels.copy()).fingerprint() == before


@pytest.mark.parametrize("place", [0, 4_000, 5_000, 9_000, 9_999])
def test_a_file_is_known_by_its_size_and_three_pieces(tmp_path: Path, place: int) -> None:
    content = bytearray(10_000)
    (tmp_path / "a").write_bytes(content)
    images = FileImages.of(str(tmp_path), ["a", "gone"])
    before = images.content(0)
    content[place] = 1
    (tmp_path / "a").write_bytes(content)
    assert images.content(0) != before
    (tmp_path / "a").write_bytes(bytes(10_001))
    assert images.content(0) != before
    (tmp_path / "a").write_bytes(bytes(10_000))
    assert images.content(0) == before
    assert images.content(1) == 0


def test_an_array_entry_is_known_by_its_pixels(arrays: ArrayImages) -> None:
    changed = arrays.pixels.copy()
    changed[1] += 1
    other = ArrayImages.of("train", changed)
    assert arrays.content(0) == other.content(0) != arrays.content(1) != other.content(1)


def test_a_file_that_was_changed_since_it_was_listed_is_refused_and_counted(tmp_path: Path) -> None:
    """By its size or its time; other pictures of the same size in bytes would pass unseen."""
    names = [f"{number}.bmp" for number in range(4)]
    for name in names:
        Image.new("RGB", (8, 8), "red").save(tmp_path / name)
    images = FileImages.of(str(tmp_path), names).watched()
    assert images.changed() == []
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "1.bmp")
    os.utime(tmp_path / "1.bmp", ns=(1, 1))
    (tmp_path / "3.bmp").unlink()
    assert images.changed() == [1, 3]
    assert images.take(np.array([0, 3])).changed() == [1]
    assert images.load(0).shape == (8, 8, 3)
    with pytest.raises(ImageError, match=r"1\.bmp: was changed since it was listed$"):
        images.load(1)
    with pytest.raises(ImageError, match=r"3\.bmp: no such file$"):
        images.load(3)
    assert FileImages.of(str(tmp_path), names).load(1).shape == (8, 8, 3), "evaluate takes what is there"


def test_a_process_that_may_open_no_more_files_does_not_blame_the_image(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "0.png")
    images = FileImages.of(str(tmp_path), ["0.png"])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull, "rb") as file:
        free = file.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            images.load(0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
