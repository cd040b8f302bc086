"""Every random decision about data, as a pure function of (seed, epoch, position): no state to save or restore.

A counter hash (the finaliser of SplitMix64; Steele, Lea, Flood 2014) instead of a generator, so that worker
count and resuming cannot change a draw. Knows nothing of images.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


class Stream(IntEnum):
    """One number per purpose, so that no two decisions share their draws."""

    AUGMENT = 0  # what happens to an image; counters are positions in the epoch's order
    ORDER = 1  # in which an epoch visits the images
    MIX = 2  # mixup and cutmix, by batch
    HOLDOUT = 3  # which images are held out, by name
    SAMPLE = 4  # some of many, to look at
    STEP = 5  # dropout, by batch and rank
    ALTERNATE = 6  # which images alternating flips mirror first, by index


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1, _MIX2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def hashed(stream: int, seed: int, epoch: int, counters: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    """Return one uint64 hash for each counter (any shape), different for each stream, seed and epoch."""
    with np.errstate(over="ignore"):
        state = np.asarray(stream + 1, dtype=np.uint64)
        for part in (seed, epoch):
            state = _mix(state * _GOLDEN + np.uint64(part))
        return _mix(state + np.asarray(counters).astype(np.uint64) * _GOLDEN)


def uniforms(seed: int, epoch: int, positions: npt.ArrayLike, k: int) -> npt.NDArray[np.float64]:
    """Return float64 [len(positions), k] in [0, 1): the augmentation draws of the images at these positions.

    Args:
        seed: of the run.
        epoch: counts from 1.
        positions: places in the global order of the epoch.
        k: draws per image; another k changes all of them, so it is a constant of the augmentation.
    """
    counters = np.asarray(positions, dtype=np.int64)[:, None] * k + np.arange(k)
    return (hashed(Stream.AUGMENT, seed, epoch, counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def order(seed: int, epoch: int, count: int) -> Integers:
    """Return the permutation int64 [count] in which an epoch visits the images."""
    return np.argsort(hashed(Stream.ORDER, seed, epoch, np.arange(count)), kind="stable").astype(np.int64)


def sample(seed: int, count: int, most: int) -> Integers:
    """Return at most `most` of `count` indices, int64, ascending: a seeded sample without replacement."""
    ranked = np.argsort(hashed(Stream.SAMPLE, seed, 0, np.arange(count)), kind="stable")
    return np.sort(ranked[:most]).astype(np.int64)


def step_seed(seed: int, epoch: int, batch: int, rank: int) -> int:
    """Return the seed of the torch generator (dropout) for one batch on one rank."""
    return int(hashed(Stream.STEP, seed, epoch, batch * 65536 + rank) >> np.uint64(1))


def generator(seed: int, epoch: int, batch: int) -> np.random.Generator:
    """Return the numpy generator that mixup and cutmix draw from for one batch."""
    return np.random.default_rng(int(hashed(Stream.MIX, seed, epoch, batch)))


def name_hash(name: str) -> int:
    """Return the signed 64-bit hash of an image's name: the same on every machine and in every version."""
    return content_hash(name.encode("utf-8", "surrogateescape"))


def content_hash(content: bytes) -> int:
    """Return a signed 64-bit hash of bytes."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little", signed=True)


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * _MIX1
    value = (value ^ (value >> np.uint64(27))) * _MIX2
    return np.asarray(value ^ (value >> np.uint64(31)))
