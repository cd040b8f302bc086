"""Twelve bits in a file of sixteen come out nearly black: this is said, and no picture is brightened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from imgcls.pixels.decode import decode
from imgcls.pixels.dim import finding, is_deep, is_dim, nearly_black
from imgcls.pixels.transform import transform
from imgcls.schema import Preprocess

BITS = np.arange(64 * 48).reshape(48, 64)


def saved(levels: npt.NDArray[np.int64], path: Path) -> str:
    """Write 16-bit grey, or 8-bit grey where the name says so."""
    Image.fromarray(levels.astype(np.uint8 if "eight" in path.name else np.uint16)).save(path)
    return str(path)


def test_which_files_are_dim(tmp_path: Path) -> None:
    twelve = saved(BITS * 4095 // BITS.max(), tmp_path / "twelve.png")
    whole = saved(BITS * 65535 // BITS.max(), tmp_path / "whole.tif")
    black = saved(BITS * 0 + 9, tmp_path / "eight.png")
    (tmp_path / "text.png").write_text("hello")
    files = (twelve, whole, black, str(tmp_path / "text.png"), str(tmp_path / "none.png"))
    assert [is_deep(file) for file in files] == [True, True, False, False, False]
    assert [is_dim(file) for file in files] == [True, False, False, False, False]
    assert len(np.unique(decode(twelve))) == 17


def test_twelve_bits_that_the_file_declares_are_scaled(tmp_path: Path) -> None:
    path = tmp_path / "declared.pgm"
    path.write_bytes(b"P5 64 48 4095\n" + (BITS * 4095 // BITS.max()).astype(">u2").tobytes())
    assert not is_dim(str(path))
    assert decode(str(path)).max() == 255


@pytest.mark.parametrize("rule", ["crop", "pad", "squash"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_what_the_network_sees_of_them_is_nearly_black(rule: str, interpolation: str) -> None:
    preprocess = Preprocess(size=40, resize=40, rule=rule, interpolation=interpolation)  # type: ignore[arg-type]
    edges = np.where((np.indices((48, 64)).sum(axis=0) // 5 % 2 == 0)[..., None], 0, np.full(3, 16)).astype(np.uint8)
    spot = edges.copy()
    spot[20:24, 30:34] = 200  # small and bright
    frames = np.stack([transform(picture, preprocess) for picture in (edges, spot, edges + np.uint8(60))])
    assert nearly_black(frames, preprocess).tolist() == [True, False, False]


def test_the_warning_counts_and_names() -> None:
    one, two = finding(["a.tif"], "3 images"), finding(["a.tif", "b.tif"], "3 images")
    assert str(one).startswith("1 of 3 images has more than 8 bits per channel and comes out nearly black, ")
    assert str(two).startswith("2 of 3 images have more than 8 bits per channel and come out nearly black, ")
    assert "(first: a.tif); if 12 bits were stored in 16, scale them to the whole range" in str(two)
