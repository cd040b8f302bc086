"""How much of a measured proportion is chance."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a proportion (Wilson 1927), as fractions; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    proportion, width = successes / trials, z * z / trials
    centre = (proportion + width / 2) / (1 + width)
    half = z / (1 + width) * math.sqrt(proportion * (1 - proportion) / trials + width / (4 * trials))
    return max(0.0, centre - half), min(1.0, centre + half)
