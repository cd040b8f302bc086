"""Every random decision about data, as a pure function of (seed, epoch, position): no state to save or restore.

A counter hash (the finaliser of SplitMix64; Steele, Lea, Flood 2014) instead of a generator, so that worker
count and resuming cannot change a draw. Knows nothing of images.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

# Of the augmentation's draws; another version gives the images of a run other changes. 1 (which older checkpoints do
# not say) gave each operation some columns of twenty common draws, so that one more operation would change them all.
VERSION = 2


class Stream(IntEnum):
    """One number per purpose, so that no two decisions share their draws."""

    # 0 was what happened to an image until VERSION 2; now each operation has a stream by its name: see `uniforms`.
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
        return _mix(_state(stream, seed, epoch) + np.asarray(counters).astype(np.uint64) * _GOLDEN)


def uniforms(name: str, seed: int, epoch: int, positions: npt.ArrayLike, count: int) -> npt.NDArray[np.float64]:
    """Return float64 [len(positions), count] in [0, 1): the draws of one operation of augmentation.

    The first ones stay as they are when there are more of them, and those of other names whatever is added or removed.

    Args:
        name: of the operation.
        seed: of the run.
        epoch: counts from 1.
        positions: in the global order of the epoch.
        count: draws per image.
    """
    images = hashed(name_hash(name) % 2**63, seed, epoch, positions)[:, None]
    with np.errstate(over="ignore"):
        values = _mix(images + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN)  # SplitMix64, seeded per image
    return (values >> np.uint64(11)).astype(np.float64) * 2.0**-53


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
    """Return the signed 64-bit hash of a name: the same on every machine and in every version."""
    return content_hash(name.encode("utf-8", "surrogateescape"))


def content_hash(content: bytes) -> int:
    """Return a signed 64-bit hash of bytes."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little", signed=True)


@lru_cache(maxsize=64)  # the same for all batches of an epoch, and half the work for a small one
def _state(stream: int, seed: int, epoch: int) -> npt.NDArray[np.uint64]:
    state = np.asarray(stream + 1, dtype=np.uint64)
    for part in (seed, epoch):
        state = _mix(state * _GOLDEN + np.uint64(part))
    return state


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * _MIX1
    value = (value ^ (value >> np.uint64(27))) * _MIX2
    return np.asarray(value ^ (value >> np.uint64(31)))
