"""Batches are functions of seed and epoch: worker count, restarts and ranks change nothing about them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from drawing import draw_tree

from imgcls.data import disk_cache, loaders
from imgcls.data.augment import Augmentation
from imgcls.data.cache import Store, in_memory
from imgcls.data.folder import read_split
from imgcls.data.images import ArrayImages
from imgcls.data.listing import Listing
from imgcls.data.loaders import Batch, Batches, Places, choose_workers, moved
from imgcls.errors import DataError, ResourceError
from imgcls.pixels.transform import transform
from imgcls.schema import Preprocess

PREPROCESS = Preprocess(size=16, resize=16)
STANDARD = Augmentation(kind="standard", flip=True, rotate=0, color_jitter=0)


def listing(count: int) -> Listing:
    """Pictures in memory, all different, of three classes in turn."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int64) % 3
    return Listing("set/train", ArrayImages.of("train", pixels), labels, ("ant", "bee", "cat"))


def equal(first: Batch, second: Batch) -> bool:
    pairs = ((first.images, second.images), (first.labels, second.labels), (first.real, second.real))
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_batch_is_uint8_pictures_and_int64_labels() -> None:
    images = listing(6)
    (batch,) = Batches(images, PREPROCESS, batch_size=8).epoch(1)
    assert (batch.images.shape, batch.images.dtype) == ((6, 3, 16, 16), torch.uint8)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert (batch.labels.tolist(), batch.labels.dtype) == ([0, 1, 2, 0, 1, 2], torch.int64)
    assert (batch.real.tolist(), batch.real.dtype) == ([True] * 6, torch.bool)
    for index in range(6):
        expected = transform(images.images.load(index), PREPROCESS)
        assert np.array_equal(batch.images[index].numpy().transpose(1, 2, 0), expected)


def test_worker_count_changes_nothing(tmp_path: Path) -> None:
    images = read_split(str(draw_tree(tmp_path, {"ant": 6, "bee": 5})))
    by_count = []
    for workers in (0, 1, 2):
        options: dict[str, Any] = {"batch_size": 4, "augmentation": STANDARD, "shuffle": True, "seed": 3}
        batches = Batches(images, PREPROCESS, workers=workers, **options)
        by_count.append([batch for epoch in (1, 2) for batch in batches.epoch(epoch)])
    assert len(by_count[0]) == 6
    for others in by_count[1:]:
        assert all(equal(first, other) for first, other in zip(by_count[0], others, strict=True))


CPU = torch.device("cpu")
LARGE = Preprocess(size=48, resize=54)
AUGMENTATIONS = {
    "evaluated": None,
    "none": Augmentation(kind="none", flip=False),
    "flip": Augmentation(kind="none", flip=True),
    "light": Augmentation(kind="light", flip=True),
    "standard": STANDARD,
    "strong": Augmentation(kind="strong", flip=True),
    "all": replace(STANDARD, rotate=20, color_jitter=0.4, alternate_flip=True, cutout=5),
}


@pytest.fixture(scope="module")
def pictures_of(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Listing]:
    """Ten pictures in files of two shapes, and ten in arrays."""
    root = draw_tree(tmp_path_factory.mktemp("pictures"), {"ant": 5}, size=(130, 100))
    draw_tree(root, {"bee": 5}, size=(50, 60), seed=1)
    pixels = np.random.default_rng(0).integers(0, 256, (10, 56, 56, 3), dtype=np.uint8)
    labels = np.arange(10, dtype=np.int64) % 2
    arrays = Listing("arrays", ArrayImages.of("train", pixels), labels, ("ant", "bee"))
    return {"files": read_split(str(root)), "arrays": arrays}


def held(batches: Batches, where: str) -> Store:
    """The pictures of these batches, decoded."""
    if where == "disk":
        return disk_cache.write(batches.pictures, 1, lambda done: None)
    store = in_memory(batches.pictures, 1, batches.pictures.bytes(), lambda done: None)
    assert store is not None
    return store


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("preprocess", [PREPROCESS, LARGE])
@pytest.mark.parametrize("source", ["files", "arrays"])
def test_neither_workers_nor_a_store_change_a_bit(
    source: str,
    preprocess: Preprocess,
    augmentation: str,
    pictures_of: dict[str, Listing],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    how = AUGMENTATIONS[augmentation]
    options: dict[str, Any] = {"batch_size": 4, "augmentation": how, "shuffle": how is not None, "seed": 3}

    def two_epochs(batches: Batches) -> list[Batch]:
        return [batch for epoch in (1, 2) for batch in batches.epoch(epoch)]

    first = Batches(pictures_of[source], preprocess, **options)
    expected = two_epochs(first)
    assert len(expected) == 6
    assert not first.cached
    both = {batch.images.numpy().tobytes() for batch in expected}
    assert len(both) == (3 if how is None else 6), "epochs differ in training"
    for workers in (1, 2):
        again = two_epochs(Batches(pictures_of[source], preprocess, workers=workers, **options))
        assert all(equal(one, other) for one, other in zip(expected, again, strict=True))
    for where in ("memory", "disk"):
        store = held(first, where)
        before = np.array(store.pixels)
        for workers in (0, 2):
            batches = Batches(pictures_of[source], preprocess, workers=workers, **options).from_store(store, CPU)
            assert batches.cached
            assert batches.nbytes == store.pixels.nbytes
            again = two_epochs(batches)
            assert all(equal(one, other) for one, other in zip(expected, again, strict=True)), (where, workers)
        assert np.array_equal(store.pixels, before), "the store is as it was"


@pytest.mark.parametrize("augmentation", ["standard", "strong", "all"])
@pytest.mark.parametrize("preprocess", [PREPROCESS, LARGE])
def test_two_ranks_with_stores_make_the_batches_of_one_process(
    preprocess: Preprocess, augmentation: str, pictures_of: dict[str, Listing]
) -> None:
    options: dict[str, Any] = {"augmentation": AUGMENTATIONS[augmentation], "shuffle": True, "seed": 5}
    whole = Batches(pictures_of["files"], preprocess, batch_size=4, **options)
    shares = [Batches(pictures_of["files"], preprocess, batch_size=2, rank=rank, ranks=2, **options) for rank in (0, 1)]
    stored = [share.from_store(held(share, "memory"), CPU) for share in shares]
    for epoch in (1, 2):
        for batch, *parts in zip(whole.epoch(epoch), *(each.epoch(epoch) for each in stored), strict=True):
            assert equal(batch, Batch(*(torch.cat(part) for part in zip(*map(_tensors, parts), strict=True))))


def _tensors(batch: Batch) -> tuple[torch.Tensor, ...]:
    return batch.images, batch.labels, batch.real


def test_a_filler_is_marked_when_made_from_a_store() -> None:
    ranks = [Batches(listing(1), PREPROCESS, batch_size=2, rank=rank, ranks=2, shuffle=True) for rank in (0, 1)]
    made = [next(each.from_store(held(each, "memory"), CPU).epoch(1)) for each in ranks]
    assert sorted(batch.real.tolist() for batch in made) == [[False], [True]]
    assert all(batch.images.shape == (1, 3, 16, 16) for batch in made)


@pytest.mark.parametrize("preprocess", [PREPROCESS, LARGE])
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("stored", [False, True])
def test_in_order_gives_every_image_once_as_validation_does(
    stored: bool, workers: int, preprocess: Preprocess, pictures_of: dict[str, Listing]
) -> None:
    """Of any rank's training batches; these go on as before."""
    expected = list(Batches(pictures_of["files"], preprocess, batch_size=4).epoch(1))
    options: dict[str, Any] = {"augmentation": AUGMENTATIONS["none"], "shuffle": True, "rank": 1, "ranks": 2}
    training = Batches(pictures_of["files"], preprocess, batch_size=4, workers=workers, **options)
    if stored:
        training = training.from_store(held(training, "memory"), CPU)
    before = list(training.epoch(1))
    found = list(training.in_order().epoch(0))
    assert all(equal(one, other) for one, other in zip(expected, found, strict=True))
    assert all(equal(one, other) for one, other in zip(before, training.epoch(1), strict=True))


def test_in_order_takes_from_the_store_too(pictures_of: dict[str, Listing]) -> None:
    training = Batches(pictures_of["files"], LARGE, batch_size=4, augmentation=STANDARD, shuffle=True)
    assert not training.in_order().cached
    assert training.from_store(held(training, "memory"), CPU).in_order().cached


@pytest.mark.parametrize("shape", [(7,), (5, 2, 3)])
def test_features_in_memory_are_batched_in_the_order_of_their_images(shape: tuple[int, ...]) -> None:
    images = listing(10)
    batches = Batches(images, PREPROCESS, batch_size=4, shuffle=True, augmentation=AUGMENTATIONS["none"])
    features = torch.randn((10, *shape), generator=torch.Generator().manual_seed(0))
    of_features = batches.from_tensor(features)
    assert (len(of_features), of_features.nbytes) == (3, features.nbytes)
    for epoch in (1, 2):
        order = batches.places.order(epoch)
        found = list(of_features.epoch(epoch))
        assert torch.equal(torch.cat([batch.images for batch in found]), features[order])
        assert torch.equal(torch.cat([batch.labels for batch in found]), torch.from_numpy(images.labels[order]))
        assert {(batch.images.dtype, bool(batch.real.all())) for batch in found} == {(torch.float32, True)}


def test_a_batch_goes_to_a_device_whole() -> None:
    (batch,) = Batches(listing(6), PREPROCESS, batch_size=8).epoch(1)
    there = batch.to(torch.device("meta"))
    assert {part.device.type for part in _tensors(there)} == {"meta"}
    assert there.images.is_contiguous(memory_format=torch.channels_last)
    assert equal(batch.to(CPU), batch)


def test_batches_moved_to_the_cpu_are_the_same() -> None:
    batches = Batches(listing(10), PREPROCESS, batch_size=4)
    there = list(moved(batches.epoch(1), CPU))
    assert len(there) == 3
    assert all(equal(one, other) for one, other in zip(batches.epoch(1), there, strict=True))


def test_workers_that_live_on_see_the_new_epoch() -> None:
    batches = Batches(listing(8), PREPROCESS, batch_size=8, augmentation=STANDARD, shuffle=True, workers=1)
    first, second, again = (next(iter(list(batches.epoch(epoch)))) for epoch in (1, 2, 1))
    assert not equal(first, second)
    assert equal(first, again)
    order = torch.argsort(first.labels, stable=True)
    assert not torch.equal(first.images[order], second.images[torch.argsort(second.labels, stable=True)])


def test_an_epoch_left_early_does_not_disturb_the_next() -> None:
    batches = Batches(listing(20), PREPROCESS, batch_size=4, augmentation=STANDARD, shuffle=True, workers=2)
    whole = list(batches.epoch(2))
    abandoned = batches.epoch(1)
    next(abandoned)
    del abandoned
    assert all(equal(a, b) for a, b in zip(whole, batches.epoch(2), strict=True))


def test_another_seed_gives_another_order_and_other_changes() -> None:
    images = listing(30)
    first, second = (
        next(iter(Batches(images, PREPROCESS, batch_size=30, augmentation=STANDARD, shuffle=True, seed=s).epoch(1)))
        for s in (0, 1)
    )
    assert not torch.equal(first.labels, second.labels)


def test_copies_of_one_image_in_a_batch_differ() -> None:
    pixels = np.repeat(listing(1).images.pixels, 64, axis=0)  # type: ignore[attr-defined]
    copies = Listing("copies", ArrayImages.of("train", pixels), np.zeros(64, dtype=np.int64), ("ant",))
    (batch,) = Batches(copies, PREPROCESS, batch_size=64, augmentation=STANDARD, shuffle=True).epoch(1)
    assert len({image.numpy().tobytes() for image in batch.images}) >= 32
    (plain,) = Batches(copies, PREPROCESS, batch_size=64).epoch(1)
    assert len({image.numpy().tobytes() for image in plain.images}) == 1


def test_iterating_leaves_the_global_torch_generator_alone() -> None:
    """Validation in between must not change what dropout draws next."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for workers in (0, 1):
        list(Batches(listing(8), PREPROCESS, batch_size=4, shuffle=True, workers=workers).epoch(1))
    assert torch.equal(torch.get_rng_state(), before)


class Size(NamedTuple):
    images: int
    batch_size: int
    expected: list[int]


@pytest.mark.parametrize(
    "size",
    [
        Size(9, 4, [4, 3, 2]),  # BatchNorm needs two images: the last one borrows
        Size(8, 4, [4, 4]),
        Size(10, 4, [4, 4, 2]),
        Size(5, 4, [3, 2]),
        Size(3, 4, [3]),
        Size(1, 4, [1]),
        Size(3, 2, [3]),  # borrowing would only move the lonely image
        Size(5, 2, [2, 3]),
        Size(3, 1, [1, 1, 1]),
        Size(33, 16, [16, 9, 8]),
    ],
)
def test_a_last_batch_of_one_image_shares_those_of_the_batch_before(size: Size) -> None:
    places = Places(size.images, size.batch_size, seed=0, shuffle=True)
    assert [len(batch) for batch in places] == size.expected
    assert len(places) == len(size.expected)


@pytest.mark.parametrize(
    ("count", "batch_size", "expected"),
    [
        (13, 3, [[3, 3], [3, 4]]),  # not 3 + 3, 3 + 3, 0 + 1: seven images are too few for two batches of 2 + 2
        (17, 4, [[4, 4], [2, 3], [2, 2]]),  # not 4 + 4, 4 + 4, 0 + 1
        (19, 4, [[4, 4], [3, 3], [2, 3]]),  # nor 1 + 2
        (20, 4, [[4, 4], [4, 4], [2, 2]]),  # two each are enough
        (7, 2, [[3, 4]]),
    ],
)
def test_neither_of_two_processes_gets_a_batch_of_one_image(
    count: int, batch_size: int, expected: list[list[int]]
) -> None:
    options: dict[str, Any] = {"seed": 0, "shuffle": True, "ranks": 2, "smallest": 4}
    shares = [list(Places(count, batch_size, rank=rank, **options)) for rank in (0, 1)]
    assert [[len(batch) for batch in step] for step in zip(*shares, strict=True)] == expected


@pytest.mark.parametrize("ranks", range(1, 9))
def test_bounds_leave_two_images_to_each_process_and_all_other_batches_as_they_are(ranks: int) -> None:
    """For all sizes: every image once, at least two in each share, and none but the last two batches touched."""
    for batch_size in range(2, 10):
        step, smallest = batch_size * ranks, 2 * ranks
        for count in range(smallest, 6 * step + 1):
            bounds = Places(count, batch_size, seed=0, shuffle=True, ranks=ranks, smallest=smallest).bounds
            plain = [*range(0, count, step), count]
            sizes = np.diff(bounds)
            assert (bounds[0], bounds[-1], min(sizes) // ranks >= 2) == (0, count, True)
            assert max(sizes) <= max(step, 2 * smallest - 1), "memory"
            if min(np.diff(plain)) >= smallest:
                assert bounds == plain
            assert bounds[:-2] == plain[: len(bounds) - 2]
            in_order = Places(count, batch_size, seed=0, shuffle=False, ranks=ranks, smallest=smallest)
            assert in_order.bounds == plain, "validation"


def test_validation_is_in_order_and_borrows_nothing() -> None:
    places = Places(9, 4, seed=0, shuffle=False)
    assert [index for batch in places for _, _, index in batch] == list(range(9))
    assert [len(batch) for batch in places] == [4, 4, 1]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 5, 7, 8, 9, 13])
def test_ranks_together_see_each_image_once_in_as_many_steps(count: int, ranks: int, shuffle: bool) -> None:
    """7 images on 2 ranks are 7: fillers are marked and count nowhere."""
    shares = []
    for rank in range(ranks):
        places = Places(count, 2, seed=0, shuffle=shuffle, rank=rank, ranks=ranks)
        places.epoch = 4
        shares.append(list(places))
    assert len({len(share) for share in shares}) == 1
    real = [index for share in shares for batch in share for _, position, index in batch if position >= 0]
    assert sorted(real) == list(range(count))
    assert all(batch for share in shares for batch in share), "no rank is ever without an image"


def test_ranks_together_make_the_batches_of_one_process() -> None:
    images = listing(10)
    options: dict[str, Any] = {"augmentation": STANDARD, "shuffle": True, "seed": 5}
    whole = list(Batches(images, PREPROCESS, batch_size=4, **options).epoch(2))
    shares = [
        list(Batches(images, PREPROCESS, batch_size=2, rank=rank, ranks=2, **options).epoch(2)) for rank in (0, 1)
    ]
    for batch, first, second in zip(whole, *shares, strict=True):
        assert torch.equal(batch.images, torch.cat([first.images, second.images]))
        assert torch.equal(batch.labels, torch.cat([first.labels, second.labels]))


def test_a_filler_is_marked() -> None:
    batches = [list(Batches(listing(1), PREPROCESS, batch_size=2, rank=rank, ranks=2).epoch(1)) for rank in (0, 1)]
    assert sorted(batch.real.tolist() for (batch,) in batches) == [[False], [True]]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named(tmp_path: Path, workers: int) -> None:
    images = read_split(str(draw_tree(tmp_path, {"ant": 3, "bee": 3})))
    damaged = tmp_path / "bee" / "001.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(DataError, match=r"bee/001\.png: .*: replace or remove the file") as caught:
        list(Batches(images, PREPROCESS, batch_size=2, workers=workers).epoch(1))
    assert caught.value.exit_code == 3


class Deadly(ArrayImages):
    """Pictures whose loader process is killed, as by the system when memory runs out."""

    def load(self, index: int, shorter: int | None = None) -> Any:
        os._exit(9)


def test_a_lost_worker_is_a_resource_error() -> None:
    whole = listing(4)
    deadly = Listing("x", Deadly.of("train", np.zeros((4, 16, 16, 3), dtype=np.uint8)), whole.labels, whole.classes)
    with pytest.raises(ResourceError, match=r"a loader process died .*: memory may be short; lower --workers"):
        list(Batches(deadly, PREPROCESS, batch_size=2, workers=1).epoch(1))


def test_no_more_workers_than_batches() -> None:
    batches = Batches(listing(4), PREPROCESS, batch_size=4, workers=8)
    assert batches.workers == 1
    assert len(batches) == 1


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A machine with as many CPUs and as much shared memory as the test says."""

    def build(cpus: int, shared: int) -> None:
        usage = shutil.disk_usage("/")._replace(free=shared)
        monkeypatch.setattr(loaders, "available_cpus", lambda: cpus)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        monkeypatch.setattr(os.path, "isdir", lambda path: True)

    return build  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("cpus", "shared", "processes", "count", "reason"),
    [
        (4, 1 << 34, 1, 4, "4 CPUs"),
        (64, 1 << 34, 1, 8, "64 CPUs"),
        (64, 1 << 34, 16, 4, "64 CPUs"),
        (1, 1 << 34, 4, 1, "1 CPU"),
        (8, 64 << 20, 1, 2, "/dev/shm has only 64 MiB free"),  # a container's default
        (8, 64 << 20, 2, 1, "/dev/shm has only 64 MiB free"),
        (8, 1 << 20, 1, 0, "/dev/shm has only 1 MiB free"),
    ],
)
def test_workers_are_chosen_with_a_reason(
    machine: Any, cpus: int, shared: int, processes: int, count: int, reason: str
) -> None:
    machine(cpus, shared)
    choice = choose_workers(None, batch_bytes=10 << 20, processes=processes)
    assert (choice.name, choice.value, choice.reason) == ("workers", count, reason)


def test_workers_asked_for_are_taken(machine: Any) -> None:
    machine(1, 0)
    assert choose_workers(12, batch_bytes=1 << 30).value == 12
    assert choose_workers(0, batch_bytes=1).reason == "as asked"


def test_more_workers_than_cpus_are_said_in_our_words(machine: Any) -> None:
    machine(2, 1 << 34)
    assert choose_workers(100, batch_bytes=1).reason == "as asked; more than the 2 CPUs only take memory"
    assert choose_workers(2, batch_bytes=1, processes=2).reason.startswith("as asked; more than")
    assert choose_workers(2, batch_bytes=1).reason == "as asked"


def test_torch_does_not_advise_on_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning is an error in tests."""
    monkeypatch.setattr(torch._utils, "cpu_count", lambda: 1)
    batches = Batches(listing(4), PREPROCESS, batch_size=2, workers=2)
    assert len(list(batches.epoch(1))) == 2
