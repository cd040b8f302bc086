"""Random decisions are functions of (seed, epoch, position), and as good as random."""

from __future__ import annotations

import numpy as np
import pytest

from imgcls.data import draws


def test_the_same_place_gives_the_same_draws_whatever_is_asked_with_it() -> None:
    """A batch, a worker or a resumed run asks for other positions at once, and must get the same numbers."""
    whole = draws.uniforms("crop", 7, 3, range(1000), 20)
    assert np.array_equal(draws.uniforms("crop", 7, 3, [5, 900, 17], 20), whole[[5, 900, 17]])
    assert whole.shape == (1000, 20)
    assert whole.dtype == np.float64


def test_the_numbers_are_the_same_in_every_version() -> None:
    """Pinned: another value would change every run that is resumed; other uniforms are another `VERSION`."""
    assert draws.hashed(0, 0, 1, [0, 1]).tolist() == PINNED_HASHES
    assert draws.uniforms("crop", 0, 1, [0, 1], 2).tolist() == PINNED_UNIFORMS
    assert draws.VERSION == 2
    assert draws.order(0, 1, 8).tolist() == PINNED_ORDER
    assert draws.name_hash("ants/1.jpg") == PINNED_NAME


PINNED_HASHES = [850603419227752495, 8628473140829691300]
PINNED_UNIFORMS = [[0.9963168078602722, 0.7354803003602743], [0.7488830116062524, 0.4789792923985283]]
PINNED_ORDER = [5, 6, 4, 7, 3, 1, 0, 2]
PINNED_NAME = -5297190352445033703


@pytest.mark.parametrize("other", [("flip", 7, 3, 0), ("crop", 8, 3, 0), ("crop", 7, 4, 0), ("crop", 7, 3, 1)])
def test_another_name_seed_epoch_or_position_gives_other_draws(other: tuple[str, int, int, int]) -> None:
    name, seed, epoch, position = other
    first, second = draws.uniforms("crop", 7, 3, [0], 20), draws.uniforms(name, seed, epoch, [position], 20)
    assert not np.isin(first, second).any()


def test_more_draws_of_a_name_leave_the_first_as_they_are() -> None:
    assert np.array_equal(draws.uniforms("crop", 0, 1, range(9), 7)[:, :4], draws.uniforms("crop", 0, 1, range(9), 4))


def test_no_two_purposes_share_their_draws() -> None:
    values = np.concatenate([draws.hashed(stream, 0, 1, range(1000)) for stream in draws.Stream])
    assert len(np.unique(values)) == 6000


def test_draws_are_uniform_and_uncorrelated() -> None:
    """Within an operation, between operations, between neighbours and between epochs."""
    values = np.hstack([draws.uniforms(name, 0, 1, range(20000), 3) for name in ("crop", "flip", "erasing")])
    assert values.min() >= 0
    assert values.max() < 1
    counts, _ = np.histogram(values, bins=10, range=(0, 1))
    assert abs(counts / values.size - 0.1).max() < 0.005
    neighbours = np.corrcoef(values[:-1, 0], values[1:, 0])[0, 1]
    assert abs(neighbours) < 0.02
    assert abs(np.corrcoef(values.T) - np.eye(9)).max() < 0.03
    epochs = np.corrcoef(values[:, 0], draws.uniforms("crop", 0, 2, range(20000), 1)[:, 0])[0, 1]
    assert abs(epochs) < 0.02


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_an_order_visits_every_image_once(count: int) -> None:
    order = draws.order(0, 1, count)
    assert np.array_equal(np.sort(order), np.arange(count))
    assert np.array_equal(order, draws.order(0, 1, count))


def test_orders_differ_between_epochs_and_seeds() -> None:
    first = draws.order(0, 1, 1000)
    for other in (draws.order(0, 2, 1000), draws.order(1, 1, 1000)):
        assert (first == other).mean() < 0.02


def test_every_image_comes_first_sometimes() -> None:
    firsts = [int(draws.order(0, epoch, 4)[0]) for epoch in range(1, 401)]
    assert np.bincount(firsts, minlength=4).min() > 70


def test_a_sample_is_ascending_without_repeats_and_grows_by_addition() -> None:
    small, large = draws.sample(0, 100, 10), draws.sample(0, 100, 20)
    assert len(set(small.tolist())) == 10
    assert (np.diff(small) > 0).all()
    assert set(small.tolist()) <= set(large.tolist())
    assert draws.sample(0, 5, 10).tolist() == [0, 1, 2, 3, 4]
    assert not np.array_equal(small, draws.sample(1, 100, 10))


def test_each_step_and_rank_has_its_own_seed() -> None:
    seeds = {draws.step_seed(0, epoch, batch, rank) for epoch in (1, 2) for batch in range(50) for rank in range(4)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_mixing_draws_are_repeatable_per_step() -> None:
    first = draws.generator(0, 1, 5).random(3)
    assert np.array_equal(first, draws.generator(0, 1, 5).random(3))
    assert not np.array_equal(first, draws.generator(0, 1, 6).random(3))


def test_a_name_has_one_hash_everywhere() -> None:
    assert draws.name_hash("ants/1.jpg") != draws.name_hash("bees/1.jpg")
    assert -(2**63) <= draws.name_hash("caf\udce9.jpg") < 2**63  # a name that is not UTF-8
