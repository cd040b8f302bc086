"""What is known of networks by name, stated once by each family: a module with a `Family` that `registry` names.

Imports a family when one of its networks is asked for, and no torch by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from imgcls.registry import ARCHITECTURES, resolve
from imgcls.schema import Interpolation

if TYPE_CHECKING:
    from torch import nn

SMALLEST = 8  # pixels, the side of input that a network takes of which no other is known

T = TypeVar("T")


@dataclass(frozen=True)
class Recipe:
    """How a network's published weights were made to see images, and where they are."""

    name: str  # e.g. ResNet18_Weights.IMAGENET1K_V1
    url: str
    license: str | None  # None: that of the family
    size: int
    resize: int
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Family:
    """The networks of one origin. Tables and tuples go by how a name begins; what they leave out has nothing special.

    Attributes:
        name: of the origin, said before the name of its weights.
        build: from name, classes and side of the input in pixels to a network with fresh weights of the current torch
            generator: float [B, 3, S, S] to logits [B, classes].
        smallest: smallest side of the input, pixels; of others it is `SMALLEST`.
        multiple: what the side of the input must be a multiple of, pixels.
        small_stem: ResNets, which begin with `conv1` and `maxpool`: `--stem small` exists for them.
        fine_tuned_gently: those whose trained weights want a lower learning rate.
        off_meta: those that cannot be built on torch's meta device, without their memory.
        recipe: that of the published weights of a network, None when there are none.
        first_names: how the first tensor of a state dict is called, after a dot: to tell that a file is of another
            network without building it. Without it it is built.
        renames: pattern and replacement for the names of tensors in files that are older than the networks.
        auxiliary: how the names of tensors begin that serve training only, and that the networks are built without.
        positions: name of a vision transformer's position embedding [1, 1 + patches, width], class token first, which
            is interpolated to another input size.
    """

    name: str
    build: Callable[[str, int, int], nn.Module]
    smallest: Mapping[str, int] = field(default_factory=dict)
    multiple: Mapping[str, int] = field(default_factory=dict)
    small_stem: tuple[str, ...] = ()
    fine_tuned_gently: tuple[str, ...] = ()
    off_meta: tuple[str, ...] = ()
    recipe: Callable[[str], Recipe | None] = lambda arch: None
    first_names: Mapping[str, str] = field(default_factory=dict)
    renames: tuple[tuple[re.Pattern[str], str], ...] = ()
    auxiliary: tuple[str, ...] = ()
    positions: str | None = None


def family(arch: str) -> Family:
    """Return the family of a name in `registry.ARCHITECTURES`."""
    found: Family = resolve(ARCHITECTURES[arch])
    return found


def published(arch: str) -> Recipe | None:
    """Return the recipe of an architecture's published weights, or None when it has none."""
    return family(arch).recipe(arch)


def has_small_stem(arch: str) -> bool:
    """Tell whether `--stem small` exists for this architecture."""
    return arch.startswith(family(arch).small_stem)


def small_stems() -> list[str]:
    """Return how the names of the architectures begin that `--stem small` exists for."""
    return [name for entry in dict.fromkeys(ARCHITECTURES.values()) for name in resolve(entry).small_stem]


def is_fine_tuned_gently(arch: str) -> bool:
    """Tell whether trained weights of this architecture want a lower learning rate than those of others."""
    return arch.startswith(family(arch).fine_tuned_gently)


def first_name(arch: str) -> str:
    """Return how the names of an architecture's first tensor end, "" when that is not known."""
    return _by_beginning(family(arch).first_names, arch, "")


def size_problem(arch: str, image_size: int) -> str | None:
    """Return why a network cannot take inputs of this side, or None."""
    known = family(arch)
    multiple = _by_beginning(known.multiple, arch, 1)
    if image_size % multiple:
        return f"--size {image_size}: {arch} needs a multiple of {multiple}"
    smallest = _by_beginning(known.smallest, arch, SMALLEST)
    if image_size < smallest:
        return f"--size {image_size}: {arch} needs at least {smallest}"
    return None


def _by_beginning(table: Mapping[str, T], arch: str, default: T) -> T:
    return next((value for beginning, value in table.items() if arch.startswith(beginning)), default)
