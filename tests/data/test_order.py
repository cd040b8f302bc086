"""The order of an epoch is a function: cuts, ranks and where it is entered change nothing about it."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any, NamedTuple

import numpy as np
import pytest

from imgcls.data import draws
from imgcls.data.order import Order, Selection


def sizes(order: Order, rank: int = 0) -> list[int]:
    """Return how many images are in each batch of a process."""
    return [len(selection.indices) for selection in order.batches(1, rank)]


def same(first: list[Selection], second: list[Selection]) -> bool:
    return len(first) == len(second) and all(
        one.epoch == other.epoch
        and np.array_equal(one.positions, other.positions)
        and np.array_equal(one.indices, other.indices)
        for one, other in zip(first, second, strict=True)
    )


def test_a_selection_says_which_image_stands_where() -> None:
    order = Order(10, 4, seed=3, shuffle=True)
    indices = order.of(2)
    assert np.array_equal(indices, draws.order(3, 2, 10))
    second = list(order.batches(2))[1]
    assert second.epoch == 2
    assert second.positions.tolist() == [4, 5, 6, 7]
    assert second.indices.tolist() == indices[4:8].tolist()
    assert {indices.dtype, second.positions.dtype, second.indices.dtype} == {np.dtype(np.int64)}
    assert Order(10, 4).of(2).tolist() == list(range(10))


def test_it_is_a_value_that_nobody_changes() -> None:
    order = Order(10, 4, seed=3, shuffle=True)
    assert order == Order(10, 4, seed=3, shuffle=True)
    with pytest.raises(FrozenInstanceError):
        order.seed = 4  # type: ignore[misc]
    one, other = order.batches(1), order.batches(2)
    both = [(next(one), next(other)) for _ in range(len(order))]
    assert same([first for first, _ in both], list(order.batches(1)))
    assert same([second for _, second in both], list(order.batches(2)))
    assert not np.array_equal(order.of(1), order.of(2))
    assert not np.array_equal(order.of(1), Order(10, 4, seed=4, shuffle=True).of(1))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("rank", [0, 1])
def test_an_epoch_may_be_entered_at_any_batch(shuffle: bool, rank: int) -> None:
    order = Order(13, 2, shuffle=shuffle, ranks=2)
    whole = list(order.batches(3, rank))
    assert len(whole) == len(order) == 4
    for start in range(5):
        assert same(list(order.batches(3, rank, start)), whole[start:])


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
def test_a_last_batch_of_one_image_takes_some_of_the_batch_before(size: Size) -> None:
    order = Order(size.images, size.batch_size, shuffle=True)
    assert sizes(order) == size.expected
    assert len(order) == len(size.expected)


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
    order = Order(count, batch_size, shuffle=True, ranks=2, smallest=4)
    assert [list(step) for step in zip(sizes(order, 0), sizes(order, 1), strict=True)] == expected


@pytest.mark.parametrize("ranks", range(1, 9))
def test_bounds_leave_two_images_to_each_process_and_all_other_batches_as_they_are(ranks: int) -> None:
    """For all sizes: every image once, at least two in each process, and none but the last two batches touched."""
    for batch_size in range(2, 10):
        step, smallest = batch_size * ranks, 2 * ranks
        for count in range(smallest, 6 * step + 1):
            bounds = Order(count, batch_size, shuffle=True, ranks=ranks, smallest=smallest).bounds
            plain = (*range(0, count, step), count)
            cut = np.diff(bounds)
            assert (bounds[0], bounds[-1]) == (0, count)
            assert min(cut) // ranks >= 2
            assert max(cut) <= max(step, 2 * smallest - 1), "memory"
            if min(np.diff(plain)) >= smallest:
                assert bounds == plain
            assert bounds[:-2] == plain[: len(bounds) - 2]
            in_order = Order(count, batch_size, shuffle=False, ranks=ranks, smallest=smallest)
            assert in_order.bounds == plain, "validation"


def test_validation_is_in_order_and_borrows_nothing() -> None:
    order = Order(9, 4)
    assert np.concatenate([selection.indices for selection in order.batches(1)]).tolist() == list(range(9))
    assert sizes(order) == [4, 4, 1]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 5, 7, 8, 9, 13])
def test_ranks_together_see_each_image_once_in_as_many_steps(count: int, ranks: int, shuffle: bool) -> None:
    """7 images on 2 ranks are 7: fillers are marked and count nowhere."""
    options: dict[str, Any] = {"shuffle": shuffle, "ranks": ranks}
    order = Order(count, 2, **options)
    parts = [list(order.batches(4, rank)) for rank in range(ranks)]
    assert {len(part) for part in parts} == {len(order)}
    everything = [selection for part in parts for selection in part]
    real = np.concatenate([selection.indices[selection.positions >= 0] for selection in everything])
    assert sorted(real.tolist()) == list(range(count))
    assert all(len(selection.indices) for selection in everything), "no rank is ever without an image"
    assert all(len(selection.indices) == 1 for selection in everything if -1 in selection.positions)
