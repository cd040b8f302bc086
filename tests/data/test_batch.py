"""All loaders have one face: epochs are functions that may be entered anywhere, and several may run at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from loading import STANDARD, STRONG, decoded, equal, listing, loader, parts

from imgcls.data.batch import Data, Loader, to_device
from imgcls.data.files import FileLoader
from imgcls.data.memory import FeatureLoader, FrameLoader, from_store

CPU = torch.device("cpu")


def features() -> FeatureLoader:
    values = torch.randn((20, 7), generator=torch.Generator().manual_seed(0))
    images = listing(20)
    return FeatureLoader(values, images.labels, loader(images, 3, STANDARD).order)


def cached(files: FileLoader) -> FileLoader | FrameLoader:
    """Return the same batches from memory."""
    return from_store(files, decoded(files), CPU)


LOADERS: dict[str, Callable[[], Loader]] = {
    "files": lambda: loader(listing(20), 3, STANDARD),
    "files, 2 processes": lambda: loader(listing(20), 3, STANDARD, workers=2),
    "store": lambda: cached(loader(listing(20), 3, STRONG)),
    "store, 2 processes": lambda: cached(loader(listing(20), 3, STRONG, workers=2)),
    "frames": lambda: cached(loader(listing(20), 3, STANDARD)),
    "features": features,
}


@pytest.fixture(params=LOADERS)
def some(request: pytest.FixtureRequest) -> Loader:
    """Loaders of every kind, of 20 images in 7 batches."""
    return LOADERS[request.param]()


def test_they_are_what_their_names_say() -> None:
    kinds = [type(make()) for make in LOADERS.values()]
    assert kinds == [FileLoader, FileLoader, FileLoader, FileLoader, FrameLoader, FeatureLoader]


def test_length_labels_and_order(some: Loader) -> None:
    batches = list(some.epoch(1))
    assert len(some) == len(batches) == 7
    labels = torch.cat([batch.labels for batch in batches])
    assert torch.equal(labels, torch.from_numpy(some.labels[some.order.of(1)]))
    assert {(batch.labels.dtype, batch.real.dtype, bool(batch.real.all())) for batch in batches} == {
        (torch.int64, torch.bool, True)
    }


def test_two_epochs_at_once_give_each_its_own(some: Loader) -> None:
    first, second = list(some.epoch(1)), list(some.epoch(2))
    assert not any(equal(one, other) for one, other in zip(first, second, strict=True))
    at_once = list(zip(some.epoch(1), some.epoch(2), some.epoch(1), strict=True))
    for expected, others in zip(zip(first, second, first, strict=True), at_once, strict=True):
        assert all(equal(one, other) for one, other in zip(expected, others, strict=True))


def test_an_epoch_may_be_entered_at_any_batch(some: Loader) -> None:
    whole = list(some.epoch(2))
    for start in (0, 1, 5, 7):
        rest = list(some.epoch(2, start))
        assert len(rest) == 7 - start
        assert all(equal(one, other) for one, other in zip(whole[start:], rest, strict=True))


def test_an_epoch_left_early_does_not_disturb_the_next(some: Loader) -> None:
    whole = list(some.epoch(2))
    abandoned = some.epoch(1)
    next(abandoned)
    kept = some.epoch(1)
    next(kept)
    del abandoned
    assert all(equal(one, other) for one, other in zip(whole, some.epoch(2), strict=True))


def test_what_is_kept_has_a_size() -> None:
    assert {name: make().nbytes for name, make in LOADERS.items()} == {
        "files": 0,
        "files, 2 processes": 0,
        "store": 20 * 16 * 16 * 3,
        "store, 2 processes": 20 * 16 * 16 * 3,
        "frames": 20 * 16 * 16 * 3,
        "features": 20 * 7 * 4,
    }


def test_a_batch_goes_to_a_device_whole() -> None:
    (batch,) = loader(listing(6), 8).epoch(1)
    there = batch.to(torch.device("meta"))
    assert {part.device.type for part in parts(there)} == {"meta"}
    assert there.images.is_contiguous(memory_format=torch.channels_last)
    assert equal(batch.to(CPU), batch)


def test_batches_on_the_cpu_are_the_same() -> None:
    batches = loader(listing(10), 4)
    there = list(to_device(batches.epoch(1), CPU))
    assert len(there) == 3
    assert all(equal(one, other) for one, other in zip(batches.epoch(1), there, strict=True))


def test_data_may_be_without_validation() -> None:
    train, val = loader(listing(6), 4, STANDARD), loader(listing(6), 4)
    assert Data(train).loaders == [train]
    assert Data(train, val).loaders == [train, val]
    for data in (Data(train), Data(train, val)):
        assert Data.of(data.loaders) == data
        assert Data.of(data.loaders, features=True) == replace(data, features=True)
