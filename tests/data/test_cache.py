"""Pictures decoded ahead by threads, and kept in memory when they fit."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from augmenting import augmentation as augmented
from drawing import draw_six_sizes, draw_tree
from PIL import Image

from imgcls.data.augment.recipe import Augmentation
from imgcls.data.cache import FEW, MEMORY_FRACTION, choose_cache, decoded, in_memory
from imgcls.data.class_folders import read_split
from imgcls.data.images import ArrayImages, FileImages
from imgcls.data.pictures import SLACK, Pictures
from imgcls.errors import ImageError
from imgcls.schema import Preprocess

SMALL, LARGE = Preprocess(size=16, resize=16), Preprocess(size=48, resize=54)
SMALL_STANDARD = augmented(SMALL, augment="standard", flip=True)
STANDARD = augmented(LARGE, augment="standard", flip=True)


def quiet(done: int) -> None:
    """Receives the number of images done."""


def arrays(count: int, side: int = 16) -> ArrayImages:
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return ArrayImages.of("train", pixels)


def decoding() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


@pytest.fixture
def files(tmp_path: Path) -> FileImages:
    """Six pictures of six sizes in files."""
    return draw_six_sizes(tmp_path)


@pytest.mark.parametrize(("preprocess", "augmentation"), [(SMALL, None), (SMALL, SMALL_STANDARD), (LARGE, STANDARD)])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_store_holds_the_very_pictures(
    files: FileImages, preprocess: Preprocess, augmentation: Augmentation | None, workers: int
) -> None:
    pictures, seen = Pictures(files, preprocess, augmentation), list[int]()
    store = in_memory(pictures, workers, pictures.bytes(), seen.append)
    assert store is not None
    assert (len(store), seen[-1]) == (6, 6)
    for index in (3, 0, 5, 1):
        assert np.array_equal(store[index], pictures[index])
    assert store.pixels.nbytes == pictures.bytes()


def test_frames_of_a_store_are_one_array() -> None:
    images = arrays(5)
    store = in_memory(Pictures(images, SMALL), 1, 10**6, quiet)
    assert store is not None
    assert np.array_equal(store.frames(), images.pixels)
    assert np.shares_memory(store.frames(), store.pixels)


def test_what_does_not_fit_by_one_byte_is_not_held(files: FileImages) -> None:
    pictures = Pictures(files, LARGE, STANDARD)
    size = sum(pictures[index].nbytes for index in range(6))
    assert in_memory(pictures, 1, size - 1, quiet) is None
    assert in_memory(pictures, 1, size, quiet) is not None
    assert in_memory(pictures, 1, 0, quiet) is None
    assert in_memory(pictures, 1, 1 << 60, quiet) is None, "more than any machine has"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_what_does_not_fit_gives_its_memory_back_though_freed_memory_is_kept() -> None:
    program = """
import numpy as np
from pathlib import Path
from imgcls.data import cache
from imgcls.machine import keep_freed_memory
keep_freed_memory()
kept = []
def many(some, workers):
    kept.append(np.ones(1000))
    for _ in range(100):
        yield [np.ones((1000, 1000, 3), np.uint8)]
        kept.append(np.ones(1000))
cache.decoded = many
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
before = resident()
assert cache.in_memory(range(100), 1, 200_000_000, lambda done: None) is None
print(resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 50, "190 MB were filled"


def test_decoding_ends_soon_when_the_memory_is_full() -> None:
    loaded = []

    class Counted(ArrayImages):
        def load(self, index: int, shorter: int | None = None) -> Any:
            loaded.append(index)
            return super().load(index, shorter)

    assert in_memory(Pictures(Counted.of("train", arrays(1000).pixels), SMALL), 1, 16 * 16 * 3 * 10, quiet) is None
    assert max(loaded) < 400
    assert decoding() == []


@pytest.mark.skipif(sys.platform != "linux", reason="counts pages as Linux does")
def test_only_what_is_filled_takes_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
    store = in_memory(Pictures(arrays(5), SMALL), 1, 1 << 30, quiet)
    assert store is not None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


@pytest.mark.parametrize("count", [1, 4, 32, 163])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_threads_keep_the_order(workers: int, count: int) -> None:
    images = arrays(count, side=70)
    found = [picture for some in decoded(Pictures(images, Preprocess(size=70, resize=70)), workers) for picture in some]
    assert np.array_equal(np.stack(found), images.pixels)
    assert decoding() == []


def test_large_pictures_are_decoded_by_several_threads_at_once() -> None:
    barrier, seen = threading.Barrier(2, timeout=20), threading.local()

    class Waiting(ArrayImages):
        def load(self, index: int, shorter: int | None = None) -> Any:
            if not hasattr(seen, "first"):  # in this thread
                seen.first = index
                barrier.wait()
            return super().load(index, shorter)

    images = Waiting.of("train", arrays(100, side=70).pixels)
    found = [picture for some in decoded(Pictures(images, Preprocess(size=70, resize=70)), 2) for picture in some]
    assert np.array_equal(np.stack(found), images.pixels)


def test_tiny_pictures_are_decoded_by_one_thread() -> None:
    names = set()

    class Named(ArrayImages):
        def load(self, index: int, shorter: int | None = None) -> Any:
            names.add(threading.current_thread().name)
            return super().load(index, shorter)

    for _ in decoded(Pictures(Named.of("train", arrays(300).pixels), SMALL), 4):
        pass
    assert len(names) == 1


@pytest.fixture
def damaged(tmp_path: Path) -> Pictures:
    """200 pictures of 70 px; number 150 and number 170 are damaged."""
    images = read_split(str(draw_tree(tmp_path, {"ant": 200}, size=(70, 70)))).images
    for number in (150, 170):
        path = Path(images.path(number))
        path.write_bytes(path.read_bytes()[:300])
    return Pictures(images, Preprocess(size=70, resize=70))


@pytest.mark.parametrize("workers", [1, 3])
def test_an_unreadable_image_is_named_and_ends_the_threads(damaged: Pictures, workers: int) -> None:
    seen = list[int]()
    with pytest.raises(ImageError, match=r"ant/150\.png: "):
        in_memory(damaged, workers, damaged.bytes(), seen.append)
    assert 100 < seen[-1] <= 150
    assert decoding() == []


def test_an_interruption_ends_the_threads() -> None:
    """`told` raises when a signal came."""

    def told(done: int) -> None:
        raise KeyboardInterrupt

    pictures = Pictures(arrays(640, side=70), Preprocess(size=70, resize=70))
    with pytest.raises(KeyboardInterrupt):
        in_memory(pictures, 2, pictures.bytes(), told)
    assert decoding() == []


def test_one_small_picture_among_large_ones_does_not_stop_the_other_threads(files: FileImages) -> None:
    Image.new("RGB", (20, 20)).save(f"{files.root}/0.png")
    some = decoded(Pictures(files, LARGE), 3)
    assert len(next(some)) == FEW
    some.close()  # type: ignore[attr-defined]


def test_who_leaves_early_ends_the_threads() -> None:
    some: Iterator[Any] = decoded(Pictures(arrays(640, side=70), Preprocess(size=70, resize=70)), 2)
    assert len(next(some)) < 100
    del some
    assert decoding() == []


TEN = Pictures(arrays(10), SMALL)
TEN_BYTES = 10 * 16 * 16 * 3
ENOUGH = round(TEN_BYTES / MEMORY_FRACTION)


@pytest.mark.parametrize(
    ("asked", "free", "value", "reason"),
    [
        (None, ENOUGH, "memory", "the images take 7.2e-06 GiB decoded, 1.4e-05 GiB are free"),
        (None, ENOUGH - 1, "off", "the images may take 7.2e-06 GiB decoded, half of the free memory is 7.2e-06 GiB"),
        (None, 0, "off", "the images may take 7.2e-06 GiB decoded, half of the free memory is 0 GiB"),
        ("memory", 0, "memory", "as asked; the images take 7.2e-06 GiB decoded"),
        ("disk", 1 << 40, "disk", "as asked; the images take 7.2e-06 GiB decoded"),
        ("off", 1 << 40, "off", "as asked"),
    ],
)
def test_the_place_of_decoded_images_is_chosen_with_a_reason(
    asked: Literal["memory", "disk", "off"] | None, free: int, value: str, reason: str
) -> None:
    pictures = [TEN if asked != "disk" else replace(TEN, images=FileImages.of("", ["a.png"] * 10))]
    choice = choose_cache(asked, pictures, free, epochs=2)
    assert (choice.name, choice.value, choice.reason) == ("cache", value, reason)


def test_what_a_cache_cannot_serve_has_none() -> None:
    assert choose_cache("disk", [TEN], 1 << 40, epochs=2).value == "memory", "arrays are no files"
    assert choose_cache(None, [TEN], 1 << 40, epochs=1).reason == "a single epoch decodes once anyway"
    assert choose_cache("memory", [TEN], 1 << 40, epochs=1).value == "memory"


def test_what_is_estimated_may_be_a_quarter_larger(files: FileImages) -> None:
    pictures = Pictures(files, LARGE, STANDARD)
    enough = pictures.bytes() * SLACK / MEMORY_FRACTION
    for free, value in ((enough + 4, "memory"), (enough - 4, "off")):
        assert choose_cache(None, [pictures], int(free), epochs=2).value == value


def test_all_splits_count() -> None:
    assert choose_cache(None, [TEN, TEN], 2 * ENOUGH, epochs=2).value == "memory"
    assert choose_cache(None, [TEN, TEN], 2 * ENOUGH - 1, epochs=2).value == "off"


def test_without_a_cache_no_header_is_read(tmp_path: Path) -> None:
    missing = Pictures(FileImages.of(str(tmp_path), ["missing.png"]), LARGE, STANDARD)
    assert choose_cache("off", [missing], 0, epochs=2).value == "off"
    with pytest.raises(ImageError, match=r"missing\.png: no such file"):
        choose_cache(None, [missing], 0, epochs=2)
