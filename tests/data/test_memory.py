"""Batches of frames and of features in memory, on one or several ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from loading import (
    AUGMENTATIONS,
    LARGE,
    PREPROCESS,
    STANDARD,
    STRONG,
    Asked,
    decoded,
    equal,
    in_files,
    listing,
    loader,
    parts,
)

from imgcls import device as device_module
from imgcls.data import memory
from imgcls.data.batch import Batch
from imgcls.data.files import FileLoader
from imgcls.data.memory import FeatureLoader, FrameLoader, from_store
from imgcls.schema import Preprocess

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("augmentation", "preprocess", "kind"),
    [
        (None, PREPROCESS, FrameLoader),
        (None, LARGE, FrameLoader),
        (STANDARD, PREPROCESS, FrameLoader),
        (AUGMENTATIONS["flip"], LARGE, FrameLoader),
        (STANDARD, LARGE, FileLoader),  # pictures of all sizes, cropped one by one
        (STRONG, PREPROCESS, FileLoader),  # recoloured one by one
    ],
)
def test_frames_are_batched_where_the_whole_batch_is_varied_at_once(
    tmp_path: Path, augmentation: Asked, preprocess: Preprocess, kind: type
) -> None:
    files = loader(in_files(tmp_path), 4, augmentation, preprocess=preprocess)
    assert type(from_store(files, decoded(files), CPU)) is kind


@pytest.mark.parametrize("augmentation", ["standard", "strong", "all"])
@pytest.mark.parametrize("preprocess", [PREPROCESS, LARGE])
def test_two_ranks_with_stores_make_the_batches_of_one_process(
    tmp_path: Path, preprocess: Preprocess, augmentation: str
) -> None:
    images, how = in_files(tmp_path), AUGMENTATIONS[augmentation]
    options: dict[str, Any] = {"preprocess": preprocess, "seed": 5}
    whole = loader(images, 4, how, **options)
    ranks = [loader(images, 2, how, rank=rank, ranks=2, **options) for rank in (0, 1)]
    stored = [from_store(rank, decoded(rank), CPU) for rank in ranks]
    for epoch in (1, 2):
        for batch, *both in zip(whole.epoch(epoch), *(rank.epoch(epoch) for rank in stored), strict=True):
            assert equal(batch, Batch(*(torch.cat(part) for part in zip(*map(parts, both), strict=True))))


def test_a_filler_is_marked() -> None:
    ranks = [loader(listing(1), 2, STANDARD, rank=rank, ranks=2) for rank in (0, 1)]
    made = [next(from_store(rank, decoded(rank), CPU).epoch(1)) for rank in ranks]
    assert sorted(batch.real.tolist() for batch in made) == [[False], [True]]
    assert all(batch.images.shape == (1, 3, 16, 16) for batch in made)


@pytest.mark.parametrize("shape", [(7,), (5, 2, 3)])
def test_features_are_batched_in_the_order_of_their_images(shape: tuple[int, ...]) -> None:
    images = listing(10)
    features = torch.randn((10, *shape), generator=torch.Generator().manual_seed(0))
    batches = FeatureLoader(features, images.labels, loader(images, 4, STANDARD).order)
    assert (len(batches), batches.nbytes) == (3, features.nbytes)
    for epoch in (1, 2):
        order = batches.order.of(epoch)
        found = list(batches.epoch(epoch))
        assert torch.equal(torch.cat([batch.images for batch in found]), features[order])
        assert torch.equal(torch.cat([batch.labels for batch in found]), torch.from_numpy(images.labels[order]))
        assert {(batch.images.dtype, bool(batch.real.all())) for batch in found} == {(torch.float32, True)}


def test_features_keep_channels_last() -> None:
    """The order in memory is that in which dropout draws."""
    images = listing(10)
    features = torch.randn(10, 5, 2, 3).contiguous(memory_format=torch.channels_last)
    batches = FeatureLoader(features, images.labels, loader(images, 4, STANDARD).order)
    assert all(batch.images.is_contiguous(memory_format=torch.channels_last) for batch in batches.epoch(1))


def test_batches_are_gathered_by_one_thread_and_the_network_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[int] = []

    def put(values: Any, device: torch.device) -> torch.Tensor:
        inside.append(torch.get_num_threads())
        return device_module.put(values, device)

    monkeypatch.setattr(memory, "put", put)
    files, before = loader(listing(6), 4, STANDARD), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for _ in from_store(files, decoded(files), CPU).epoch(1):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(inside) == {1}
