"""What several tests share: photographs, a data set that is learnt in seconds, a model, and the command line."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from imgcls.cli.app import app

# Read when torch is first imported. Two test processes with two torch threads each on two cores take up to 12 times
# as long, and the number of threads changes the rounding.
os.environ["OMP_NUM_THREADS"] = "1"

COLOURS = {"blue": (30, 60, 220), "red": (220, 40, 30)}

Run = Callable[..., Result]
SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hymenoptera photographs: train/ and val/ with ants/ and bees/ (244 + 153 images, one stray GIF)."""
    archive = SHARED / "hymenoptera.tar"
    if not archive.is_file():
        pytest.skip("hymenoptera.tar is not at hand")
    folder = tmp_path_factory.mktemp("photographs")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / "hymenoptera_data"


@pytest.fixture
def cifar10_files() -> Iterator[tuple[str, bytes]]:
    """The names and contents of CIFAR-10's 50,000 + 10,000 images as JPEG files, class by class."""
    archive = SHARED / "cifar10-jpeg.tar.xz"
    if not archive.is_file():
        pytest.skip("cifar10-jpeg.tar.xz is not at hand")

    def files() -> Iterator[tuple[str, bytes]]:
        with tarfile.open(archive, "r|xz") as tar:
            for member in tar:
                if (file := tar.extractfile(member)) is not None:
                    yield member.name, file.read()

    return files()


@pytest.fixture(scope="session")
def run() -> Run:
    """Run a command line in this process, for example `run predict cat.png`."""

    def invoke(*arguments: object, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)

    return invoke


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/, val/ and test/ with noisy red and blue squares of 16 px: 12 + 6 + 6 of each."""
    root = tmp_path_factory.mktemp("colours")
    generator = np.random.default_rng(0)
    for split, count in {"train": 12, "val": 6, "test": 6}.items():
        for name, colour in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(generator.normal(colour, 25, (16, 16, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number:02d}.png")
    return root


@pytest.fixture(scope="session")
def best(colours: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """best.pt of a simple-cnn that tells red from blue without a mistake."""
    out = tmp_path_factory.mktemp("trained") / "run"
    options = ("--arch", "simple-cnn", "--epochs", 5, "--lr", 0.01, "--workers", 0)
    result = run("train", "--data", colours, *options, "--out", out)
    assert result.exit_code == 0, result.output
    assert "validation accuracy 100.0 %" in result.stdout
    return out / "best.pt"
