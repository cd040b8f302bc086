"""The decoding pool: in order, errors in their own place, reading no further ahead than it must."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from drawing import draw_tree
from PIL import Image

from imgcls.errors import ImageError
from imgcls.inference.pool import HANDFUL, decoded
from imgcls.pixels.decode import decode
from imgcls.pixels.transform import transform
from imgcls.schema import Preprocess

PREPROCESS = Preprocess(size=16, resize=18)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Thirty pictures, every seventh of them damaged."""
    folder = draw_tree(tmp_path_factory.mktemp("pool"), {"all": 30}) / "all"
    files = sorted(folder.iterdir())
    for path in files[::7]:
        path.write_bytes(path.read_bytes()[:100])
    return [str(path) for path in files]


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("count", [0, 1, 4, 5, 30])
def test_answers_come_in_order_with_each_error_in_its_place(paths: list[str], workers: int, count: int) -> None:
    answers = [answer for answer in decoded(iter(paths[:count]), PREPROCESS, workers, ahead=4) if answer is not None]
    assert [path for path, _ in answers] == paths[:count]
    for number, (path, pixels) in enumerate(answers):
        if number % 7 == 0:
            assert isinstance(pixels, ImageError)
            assert str(pixels).startswith(path)
        else:
            assert np.array_equal(np.asarray(pixels), transform(decode(path), PREPROCESS))


def test_paths_are_read_lazily(tmp_path: Path) -> None:
    """A million paths on standard input must not become a million pictures in memory."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield str(tmp_path / "a.png")

    stream = decoded(endless(), PREPROCESS, workers=2, ahead=8)
    for _ in range(50):
        next(stream)
    assert read <= 50 + 8 + 1
    stream.close()  # type: ignore[attr-defined]


def test_a_handful_of_images_starts_no_threads(paths: list[str]) -> None:
    before = set(threading.enumerate())
    for _ in decoded(paths[1:4], PREPROCESS, workers=4):
        assert set(threading.enumerate()) <= before


def test_an_abandoned_stream_ends_its_threads(paths: list[str]) -> None:
    stream = decoded(paths, PREPROCESS, workers=2, ahead=8)
    for _ in range(HANDFUL + 1):
        next(stream)
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
    assert workers
    stream.close()  # type: ignore[attr-defined]
    for thread in workers:
        thread.join(10)
        assert not thread.is_alive()
