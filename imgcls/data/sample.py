"""A small drawn data set: coloured shapes on noisy ground, in train/, val/ and test/ with one folder per shape."""

from __future__ import annotations

import colorsys
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from imgcls.errors import UsageError
from imgcls.files import check_folder, explained

SIDE = 64  # pixels
# Each shape has a hue of its own (degrees), so that a few epochs from scratch are enough to tell them apart.
SHAPES = {"circle": 215, "cross": 285, "square": 0, "star": 50, "triangle": 125}
HUE_RANGE = 12  # degrees, standard deviation
SPLITS = {"train": 120, "val": 30, "test": 30}  # images of each shape


def draw(folder: str, seed: int = 0) -> dict[str, int]:
    """Draw the data set into a new or empty folder.

    Args:
        folder: where train/, val/ and test/ go.
        seed: another seed, other pictures.

    Returns:
        Images per split.

    Raises:
        UsageError: the folder holds something.
        WriteError: it cannot be written.
    """
    root = Path(folder)
    if root.is_dir() and any(root.iterdir()):
        raise UsageError(f"{folder}: is not empty; name a new folder")
    check_folder(root)
    generator = np.random.default_rng(seed)
    with explained(root):
        _draw_all(root, generator)
    return {split: count * len(SHAPES) for split, count in SPLITS.items()}


def _draw_all(root: Path, generator: np.random.Generator) -> None:
    for split, count in SPLITS.items():
        for shape in SHAPES:
            target = root / split / shape
            target.mkdir(parents=True)
            for number in range(count):
                picture(shape, generator).save(target / f"{shape}-{number:03d}.png")


def picture(shape: str, generator: np.random.Generator) -> Image.Image:
    """Draw one shape of random size, place and angle, its hue varied, on a noisy ground: RGB, SIDE x SIDE pixels."""
    hue = (SHAPES[shape] + generator.normal(0, HUE_RANGE)) % 360 / 360
    colour = colorsys.hsv_to_rgb(hue, generator.uniform(0.6, 1), generator.uniform(0.6, 1))
    ground = colorsys.hsv_to_rgb(generator.uniform(), generator.uniform(0, 0.25), generator.uniform(0.2, 1))
    image = Image.new("RGB", (SIDE, SIDE), _levels(ground))
    radius = generator.uniform(0.24, 0.42) * SIDE
    x, y = generator.uniform(radius, SIDE - radius, 2)
    turn = generator.uniform(0, 2 * math.pi)
    ImageDraw.Draw(image).polygon(_outline(shape, x, y, radius, turn), fill=_levels(colour))
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(0.7))).astype(np.float64)
    noisy = pixels + generator.normal(0, 12, pixels.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def _levels(colour: tuple[float, float, float]) -> tuple[int, int, int]:
    red, green, blue = (round(255 * channel) for channel in colour)
    return red, green, blue


def _outline(shape: str, x: float, y: float, radius: float, turn: float) -> list[tuple[float, float]]:
    """Return the corners of a shape around (x, y)."""
    corners = {"circle": 48, "square": 4, "triangle": 3, "star": 10, "cross": 12}[shape]
    points = []
    for corner in range(corners):
        angle, distance = turn + 2 * math.pi * corner / corners, radius
        if shape == "star" and corner % 2:
            distance = 0.45 * radius
        if shape == "cross":  # three corners per arm: two at its end, one between the arms
            arm, part = divmod(corner, 3)
            angle = turn + math.pi / 2 * arm + (-0.32, 0.32, math.pi / 4)[part]
            distance = radius if part < 2 else 0.44 * radius
        points.append((x + distance * math.cos(angle), y + distance * math.sin(angle)))
    return points
