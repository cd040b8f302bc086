"""Confidence intervals."""

from __future__ import annotations

import numpy as np
import pytest

from imgcls.intervals import wilson


@pytest.mark.parametrize(
    ("successes", "trials", "interval"),
    [  # Newcombe 1998, table I, method 3
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
        (20, 20, (0.8389, 1.0)),
        (0, 0, (0.0, 1.0)),
    ],
)
def test_wilson_equals_the_textbook(successes: int, trials: int, interval: tuple[float, float]) -> None:
    assert wilson(successes, trials) == pytest.approx(interval, abs=5e-5)


@pytest.mark.parametrize(("truth", "trials"), [(0.5, 40), (0.9, 153), (0.97, 1000)])
def test_wilson_covers_the_truth_about_95_times_in_100(truth: float, trials: int) -> None:
    draws = np.random.default_rng(0).binomial(trials, truth, 4000)
    intervals = [wilson(int(successes), trials) for successes in draws]
    covered = sum(low <= truth <= high for low, high in intervals) / len(intervals)
    assert 0.93 <= covered <= 0.97
