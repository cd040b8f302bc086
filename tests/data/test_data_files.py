"""Batches from files and stores are functions of seed and epoch: worker count, restarts and ranks change nothing."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawing import draw_tree
from loading import AUGMENTATIONS, LARGE, LISTINGS, PREPROCESS, STANDARD, STRONG, decoded, equal, listing, loader

from imgcls.data import files as module
from imgcls.data.batch import Batch, Loader
from imgcls.data.class_folders import read_split
from imgcls.data.files import choose_workers
from imgcls.data.images import ArrayImages
from imgcls.data.listing import Listing
from imgcls.data.memory import from_store
from imgcls.errors import DataError, ResourceError
from imgcls.pixels.transform import transform
from imgcls.schema import Preprocess

CPU = torch.device("cpu")


def test_a_batch_is_uint8_pictures_and_int64_labels() -> None:
    images = listing(6)
    (batch,) = loader(images, 8).epoch(1)
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
        batches = loader(images, 4, STANDARD, seed=3, workers=workers)
        by_count.append([batch for epoch in (1, 2) for batch in batches.epoch(epoch)])
    assert len(by_count[0]) == 6
    for others in by_count[1:]:
        assert all(equal(first, other) for first, other in zip(by_count[0], others, strict=True))


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("preprocess", [PREPROCESS, LARGE])
@pytest.mark.parametrize("source", LISTINGS)
def test_neither_workers_nor_a_store_change_a_bit(
    source: str,
    preprocess: Preprocess,
    augmentation: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    how = AUGMENTATIONS[augmentation]
    images = LISTINGS[source](tmp_path / "pictures")
    options: dict[str, Any] = {"preprocess": preprocess, "seed": 3}

    def two_epochs(batches: Loader) -> list[Batch]:
        return [batch for epoch in (1, 2) for batch in batches.epoch(epoch)]

    first = loader(images, 4, how, **options)
    expected = two_epochs(first)
    assert len(expected) == 6
    assert first.nbytes == 0
    both = {batch.images.numpy().tobytes() for batch in expected}
    assert len(both) == (3 if how is None else 6), "epochs differ in training"
    for workers in (1, 2):
        again = two_epochs(loader(images, 4, how, workers=workers, **options))
        assert all(equal(one, other) for one, other in zip(expected, again, strict=True))
    for where in ("memory", "disk"):
        store = decoded(first, where)
        before = np.array(store.pixels)
        for workers in (0, 2):
            batches = from_store(loader(images, 4, how, workers=workers, **options), store, CPU)
            assert batches.nbytes == store.pixels.nbytes
            again = two_epochs(batches)
            assert all(equal(one, other) for one, other in zip(expected, again, strict=True)), (where, workers)
        assert np.array_equal(store.pixels, before), "the store is as it was"


def test_workers_that_live_on_see_the_new_epoch() -> None:
    batches = loader(listing(8), 8, STANDARD, workers=1)
    first, second, again = (next(iter(list(batches.epoch(epoch)))) for epoch in (1, 2, 1))
    assert not equal(first, second)
    assert equal(first, again)
    order = torch.argsort(first.labels, stable=True)
    assert not torch.equal(first.images[order], second.images[torch.argsort(second.labels, stable=True)])


def test_another_seed_gives_another_order_and_other_changes() -> None:
    first, second = (next(loader(listing(30), 30, STANDARD, seed=seed).epoch(1)) for seed in (0, 1))
    assert not torch.equal(first.labels, second.labels)


def test_copies_of_one_image_in_a_batch_differ() -> None:
    pixels = np.repeat(listing(1).images.pixels, 64, axis=0)  # type: ignore[attr-defined]
    copies = Listing("copies", ArrayImages.of("train", pixels), np.zeros(64, dtype=np.int64), ("ant",))
    (batch,) = loader(copies, 64, STANDARD).epoch(1)
    assert len({image.numpy().tobytes() for image in batch.images}) >= 32
    (plain,) = loader(copies, 64).epoch(1)
    assert len({image.numpy().tobytes() for image in plain.images}) == 1


def test_iterating_leaves_the_global_torch_generator_alone() -> None:
    """Validation in between must not change what dropout draws next."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for workers in (0, 1):
        list(loader(listing(8), 4, shuffle=True, workers=workers).epoch(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_ranks_together_make_the_batches_of_one_process() -> None:
    images = listing(10)
    whole = loader(images, 4, STANDARD, seed=5).epoch(2)
    ranks = [loader(images, 2, STANDARD, seed=5, rank=rank, ranks=2).epoch(2) for rank in (0, 1)]
    for batch, first, second in zip(whole, *ranks, strict=True):
        assert torch.equal(batch.images, torch.cat([first.images, second.images]))
        assert torch.equal(batch.labels, torch.cat([first.labels, second.labels]))


def test_a_filler_is_marked() -> None:
    batches = [list(loader(listing(1), 2, rank=rank, ranks=2).epoch(1)) for rank in (0, 1)]
    assert sorted(batch.real.tolist() for (batch,) in batches) == [[False], [True]]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named(tmp_path: Path, workers: int) -> None:
    images = read_split(str(draw_tree(tmp_path, {"ant": 3, "bee": 3})))
    damaged = tmp_path / "bee" / "001.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(DataError, match=r"bee/001\.png: .*: replace or remove the file") as caught:
        list(loader(images, 2, workers=workers).epoch(1))
    assert caught.value.exit_code == 3


class Deadly(ArrayImages):
    """Pictures whose loader process is killed, as by the system when memory runs out."""

    def load(self, index: int, shorter: int | None = None) -> Any:
        os._exit(9)


def test_a_lost_worker_is_a_resource_error() -> None:
    gc.collect()  # torch raises from a signal handler: amid the end of another test's loader it would be lost
    whole = listing(4)
    deadly = Listing("x", Deadly.of("train", np.zeros((4, 16, 16, 3), dtype=np.uint8)), whole.labels, whole.classes)
    with pytest.raises(ResourceError, match=r"a loader process died .*: memory may be short; lower --workers"):
        list(loader(deadly, 2, workers=1).epoch(1))


def test_no_more_workers_than_batches() -> None:
    batches = loader(listing(4), 4, workers=8)
    assert batches.processes == 1
    assert len(batches) == 1


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A machine with as many CPUs and as much shared memory as the test says."""

    def build(cpus: int, shared: int) -> None:
        usage = shutil.disk_usage("/")._replace(free=shared)
        monkeypatch.setattr(module, "available_cpus", lambda: cpus)
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
    assert len(list(loader(listing(4), 2, workers=2).epoch(1))) == 2


@pytest.mark.parametrize(("platform", "processes"), [("linux", 2), ("darwin", 0)])
def test_only_forked_processes_read_a_store(monkeypatch: pytest.MonkeyPatch, platform: str, processes: int) -> None:
    """Started in another way each would get a copy of it."""
    monkeypatch.setattr(sys, "platform", platform)
    files = loader(listing(8), 2, STRONG, workers=2)
    assert files.processes == 2
    assert replace(files, store=decoded(files)).processes == processes


def test_loader_processes_live_on_and_are_not_disturbed_by_those_of_another_epoch() -> None:
    batches, before = loader(listing(8), 4, STANDARD, workers=1), set(multiprocessing.active_children())

    def epoch() -> set[int]:
        found = batches.epoch(1)
        next(found)
        alive = {process.pid for process in set(multiprocessing.active_children()) - before if process.pid}
        list(found)
        return alive

    first = epoch()
    assert len(first) == 1
    assert epoch() == first, "the same process again"
    under_way = batches.epoch(1)
    next(under_way)
    both = epoch()
    assert len(both) == 2
    assert first < both
    list(under_way)
    assert len(epoch()) == 1
