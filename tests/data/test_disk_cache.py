"""Decoded pictures in a file: found again, never stale or half written, bounded, and nowhere near the data."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from augmenting import augmentation as augmented
from drawing import draw_tree

from imgcls.data import disk_cache
from imgcls.data.augment.recipe import Augmentation
from imgcls.data.class_folders import read_split
from imgcls.data.images import ArrayImages, FileImages
from imgcls.data.pictures import Pictures
from imgcls.errors import Exit, ImageError, WriteError
from imgcls.schema import Preprocess

SMALL, LARGE = Preprocess(size=16, resize=16), Preprocess(size=48, resize=54)
STANDARD = augmented(LARGE, augment="standard", flip=True)
BYTES = 6 * (3 * 16 * 16 + 24)  # of a file with six frames of 16 px and their places


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the files, of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "imgcls"


@pytest.fixture
def files(tmp_path: Path) -> FileImages:
    """Six pictures in files."""
    images = read_split(str(draw_tree(tmp_path / "data", {"ant": 3, "bee": 3}, size=(60, 52)))).images
    assert isinstance(images, FileImages)
    return images


def quiet(done: int) -> None:
    """Receives the number of images done."""


def numbered(seed: int) -> Pictures:
    """Six other frames for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    return Pictures(ArrayImages.of("train", pixels), SMALL)


def names(cache: Path) -> list[str]:
    return sorted(os.listdir(cache)) if cache.exists() else []


@pytest.mark.parametrize(("preprocess", "augmentation"), [(SMALL, None), (LARGE, None), (LARGE, STANDARD)])
def test_what_was_written_once_is_found_and_not_decoded_again(
    files: FileImages,
    preprocess: Preprocess,
    augmentation: Augmentation | None,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pictures, seen = Pictures(files, preprocess, augmentation), list[int]()
    assert disk_cache.find(pictures) is None
    written = disk_cache.write(pictures, 2, seen.append)
    assert seen[-1] == 6
    expected = [pictures[index] for index in range(6)]
    monkeypatch.setattr("imgcls.data.images.decode", lambda *_, **__: pytest.fail("is decoded again"))
    found = disk_cache.find(Pictures(FileImages(files.root, files.names), preprocess, augmentation))
    assert found is not None
    for store in (written, found):
        assert len(store) == 6
        assert all(np.array_equal(store[index], expected[index]) for index in range(6))
    assert names(cache) == [disk_cache.file_of(pictures).name]


def test_a_store_does_not_change_its_file(files: FileImages) -> None:
    """Batches are varied in place, and torch warns of arrays that it may not write to."""
    pictures = Pictures(files, SMALL)
    store = disk_cache.write(pictures, 1, quiet)
    assert store.frames().flags.writeable
    store[0][:] = 0
    again = disk_cache.find(pictures)
    assert again is not None
    assert np.array_equal(again[0], pictures[0])


def test_other_files_or_another_decoding_have_another_file(files: FileImages, tmp_path: Path) -> None:
    path = Path(files.path(2))
    content, before = path.read_bytes(), path.stat()
    pictures = Pictures(files, SMALL)
    found = {"as it was": disk_cache.file_of(pictures)}
    for name, preprocess in {"size": LARGE, "rule": replace(SMALL, rule="squash")}.items():
        found[name] = disk_cache.file_of(Pictures(files, preprocess))
    for kind in ("light", "standard", "strong"):
        augmentation = augmented(LARGE, augment=kind, flip=True)
        found[kind] = disk_cache.file_of(Pictures(files, LARGE, augmentation))
    found["order"] = disk_cache.file_of(Pictures(files.take(np.array([1, 0, 2, 3, 4, 5])), SMALL))
    found["fewer"] = disk_cache.file_of(Pictures(files.take(np.arange(5)), SMALL))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    found["time"] = disk_cache.file_of(pictures)
    path.write_bytes(content + b"x")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    found["bytes"] = disk_cache.file_of(pictures)
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    path.rename(path.with_name("renamed.png"))
    found["gone"] = disk_cache.file_of(pictures)
    path.with_name("renamed.png").rename(path)
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    found["place"] = disk_cache.file_of(Pictures(FileImages(str(tmp_path / "copy"), files.names), SMALL))
    assert len(set(found.values())) == len(found), found
    assert disk_cache.file_of(pictures) == found["as it was"]


def test_what_changes_no_stored_pixel_shares_the_file(
    files: FileImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small inputs are shifted, mirrored and turned in batches; crops of one kind need one picture."""
    kinds = [
        None,
        *(augmented(SMALL, augment=kind, flip=flip) for kind in ("none", "strong") for flip in (True, False)),
    ]
    assert len({disk_cache.file_of(Pictures(files, SMALL, kind)) for kind in kinds}) == 1
    flipped, turned = (augmented(LARGE, augment="standard", **how) for how in ({"flip": False}, {"rotate": 10}))
    assert len({disk_cache.file_of(Pictures(files, LARGE, kind)) for kind in (STANDARD, flipped, turned)}) == 1
    monkeypatch.chdir(tmp_path)
    relative = Pictures(FileImages("data", files.names), SMALL)
    assert disk_cache.file_of(relative) == disk_cache.file_of(Pictures(files, SMALL))


@pytest.mark.parametrize("problem", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_nothing(files: FileImages, cache: Path, problem: type[BaseException]) -> None:
    def told(done: int) -> None:
        raise problem

    with pytest.raises(problem):
        disk_cache.write(Pictures(files, SMALL), 1, told)
    assert names(cache) == []


def test_an_unreadable_image_leaves_nothing(files: FileImages, cache: Path) -> None:
    Path(files.path(4)).write_bytes(b"hello")
    with pytest.raises(ImageError, match=r"bee/001\.png: not an image"):
        disk_cache.write(Pictures(files, SMALL), 1, quiet)
    assert names(cache) == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_nothing(files: FileImages, cache: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(
            WriteError,
            match=r"\.pixels: cannot write: no space left on device; free space: it needs more than [0-9,]+ bytes$",
        ):
            disk_cache.write(Pictures(files, SMALL), 1, quiet)
    assert names(cache) == []
    assert disk_cache.find(Pictures(files, SMALL)) is None


def test_a_killed_process_leaves_nothing_that_is_found(files: FileImages, cache: Path) -> None:
    pictures = Pictures(files, SMALL)

    def killed(done: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=disk_cache.write, args=(pictures, 1, killed))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [name for name in names(cache) if name.endswith(".pixels")] == []
    assert disk_cache.find(pictures) is None
    assert np.array_equal(disk_cache.write(pictures, 1, quiet)[5], pictures[5])


@pytest.mark.parametrize("length", [0, 1, 24, 100, 6 * 24, 6 * 24 + 1, 768, 3 * 768, BYTES - 24, BYTES - 1])
def test_a_file_that_is_not_whole_is_written_anew(files: FileImages, length: int) -> None:
    """Where places are read from what are pixels, or nothing, the pictures would be others."""
    pictures = Pictures(files, SMALL)
    disk_cache.write(pictures, 1, quiet)
    path = disk_cache.file_of(pictures)
    whole = path.read_bytes()
    assert len(whole) == BYTES
    fillers = [bytes([value]) * (BYTES - length) for value in (0, 1, 255)]
    for spoilt in [whole[:length], whole + bytes(24), whole[24:], *(whole[:length] + filler for filler in fillers)]:
        if spoilt != whole:
            path.write_bytes(spoilt)
            assert disk_cache.find(pictures) is None
    assert np.array_equal(disk_cache.write(pictures, 1, quiet).frames(), np.stack([pictures[i] for i in range(6)]))


@pytest.fixture
def disk(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A disk with room for some bytes, those in the cache included."""

    def build(room: int) -> None:
        def usage(place: Any) -> Any:
            used = sum(path.stat().st_size for path in cache.glob("*"))
            return real("/")._replace(total=room, used=used, free=room - used)

        real = shutil.disk_usage
        monkeypatch.setattr(shutil, "disk_usage", usage)

    return build


def test_the_files_not_used_for_longest_make_room(cache: Path, disk: Any) -> None:
    disk(2 * 3 * BYTES)  # half of it: three files
    stored = [numbered(seed) for seed in range(3)]
    for age, pictures in enumerate(stored):
        disk_cache.write(pictures, 1, quiet)
        os.utime(disk_cache.file_of(pictures), (1000 + age, 1000 + age))
    assert len(names(cache)) == 3
    assert disk_cache.find(stored[0]) is not None, "used now"
    disk_cache.write(numbered(3), 1, quiet)
    found = [disk_cache.find(numbered(seed)) is not None for seed in range(4)]
    assert found == [True, False, True, True]


def test_what_another_run_is_writing_stays(cache: Path, disk: Any) -> None:
    disk(2 * 3 * BYTES)  # half of it: three files
    disk_cache.write(numbered(0), 1, quiet)
    half_written = cache / ".imgcls-1-abcd.tmp"
    half_written.write_bytes(bytes(BYTES + 500))
    an_hour_ago = time.time() - 3600
    os.utime(half_written, (an_hour_ago, an_hour_ago))
    disk_cache.write(numbered(1), 1, quiet)
    assert names(cache) == [half_written.name, disk_cache.file_of(numbered(1)).name]


def test_room_is_made_for_a_quarter_more_than_the_estimate(files: FileImages, cache: Path, disk: Any) -> None:
    pictures = Pictures(files, LARGE, STANDARD)
    disk(2 * (pictures.bytes() + BYTES))
    disk_cache.write(numbered(0), 1, quiet)
    disk_cache.write(pictures, 1, quiet)
    assert names(cache) == [disk_cache.file_of(pictures).name]


def test_only_their_owner_may_read_the_files(files: FileImages, cache: Path) -> None:
    disk_cache.write(Pictures(files, SMALL), 1, quiet)
    (path,) = cache.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_not_ours_is_not_removed(cache: Path, disk: Any) -> None:
    disk(2 * BYTES)
    disk_cache.write(numbered(0), 1, quiet)
    (cache / "notes.txt").write_text("mine")
    os.utime(cache / "notes.txt", (1, 1))
    disk_cache.write(numbered(1), 1, quiet)
    assert names(cache) == sorted(["notes.txt", disk_cache.file_of(numbered(1)).name])


def test_too_little_disk_is_said_in_one_line(cache: Path, disk: Any) -> None:
    disk(2 * BYTES)
    disk_cache.write(numbered(0), 1, quiet)
    disk(2 * (6 * 3 * 16 * 16 - 1))
    with pytest.raises(WriteError) as caught:
        disk_cache.write(numbered(1), 1, quiet)
    assert str(caught.value) == (
        f"--cache disk: needs 0.0 GiB in {cache}, 0.0 GiB are left there of half of the free disk; type --cache off"
    )
    assert caught.value.exit_code == Exit.WRITE
    assert names(cache) == [disk_cache.file_of(numbered(0)).name], "nothing was removed in vain"


def test_pictures_larger_than_their_estimate_stop_at_the_limit(
    cache: Path, disk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(2 * 3000)
    monkeypatch.setattr(Pictures, "bytes", lambda pictures: 1000)
    with pytest.raises(WriteError, match=r"^--cache disk: needs .* type --cache off$"):
        disk_cache.write(numbered(0), 1, quiet)
    assert names(cache) == []


def test_the_folder_is_where_the_user_keeps_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert disk_cache.folder() == tmp_path / "cache" / "imgcls"
    for value in (None, ""):
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        if value is not None:
            monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert disk_cache.folder() == tmp_path / "home" / ".cache" / "imgcls"


def test_nothing_is_written_into_the_data_folder(files: FileImages, tmp_path: Path, cache: Path) -> None:
    def contents() -> dict[str, tuple[int, int]]:
        stats = {str(path): path.stat() for path in (tmp_path / "data").rglob("*")}
        return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}

    before = contents()
    for augmentation in (None, STANDARD):
        disk_cache.write(Pictures(files, LARGE, augmentation), 2, quiet)
    assert contents() == before
    assert len(names(cache)) == 2


def test_a_folder_that_cannot_be_made_is_said_in_one_line(files: FileImages, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(WriteError, match=r"^--cache disk: .*imgcls: cannot write: a .*; set XDG_CACHE_HOME to"):
        disk_cache.write(Pictures(files, SMALL), 1, quiet)
