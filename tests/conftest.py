"""Data that several tests share: real photographs when they are at hand."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

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
