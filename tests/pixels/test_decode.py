"""One decoder: what each kind of file becomes, and what is refused, always by name and in one line."""

from __future__ import annotations

import binascii
import io
import os
import re
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg
from PIL import Image, ImageCms, ImageFile, ImageOps

from imgcls.errors import ImageError
from imgcls.pixels.decode import Pixels, decode, image_size, reduced_size

# Four quarters of different colours: every turn and mirror image of it is another picture.
QUARTERS = np.zeros((24, 40, 3), dtype=np.uint8)
QUARTERS[:12, :20], QUARTERS[:12, 20:], QUARTERS[12:, :20] = (250, 20, 20), (20, 250, 20), (20, 20, 250)


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def pixels(content: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(decode(content))


def refusal(source: str | bytes, name: str | None = None) -> str:
    with pytest.raises(ImageError) as caught:
        decode(source, name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", binascii.crc32(kind + content))


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


# How a camera that was held in each of the eight ways stores the upright picture.
STORED: dict[int, npt.NDArray[np.uint8]] = {
    1: QUARTERS,
    2: QUARTERS[:, ::-1],
    3: QUARTERS[::-1, ::-1],
    4: QUARTERS[::-1],
    5: QUARTERS.transpose(1, 0, 2),
    6: np.rot90(QUARTERS, 1),
    7: QUARTERS[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(QUARTERS, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
        ("JPEG", {"quality": 100, "subsampling": 0}),
    ],
)
def test_the_eight_orientations_give_one_picture(
    kind: str, options: dict[str, Any], orientation: int, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "picture"
    path.write_bytes(saved(Image.fromarray(STORED[orientation]), kind, exif=exif, **options))
    upright = np.asarray(decode(str(path))).astype(int)
    assert upright.shape == QUARTERS.shape
    assert abs(upright - QUARTERS).max() <= (4 if kind == "JPEG" else 0)
    assert image_size(str(path)) == (40, 24)


def test_a_nonsensical_orientation_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    path = tmp_path / "picture.png"
    path.write_bytes(saved(Image.fromarray(QUARTERS), "PNG", exif=exif))
    assert np.array_equal(np.asarray(decode(str(path))), QUARTERS)
    assert image_size(str(path)) == (40, 24)


def test_cmyk_is_inverted_only_where_adobes_marker_says_so() -> None:
    """Pillow inverts every CMYK JPEG; a file without the marker would come out as its negative."""
    inks = Image.new("CMYK", (16, 16), (0, 200, 100, 0))
    marked = saved(inks, "JPEG", quality=100, subsampling=0)
    match = re.search(rb"\xff\xee\x00\x0eAdobe.{7}", marked, re.DOTALL)
    assert match, "Pillow writes the marker, and inverted inks with it"
    unmarked = marked[: match.start()] + marked[match.end() :]
    with_marker, without = pixels(marked).astype(int), pixels(unmarked).astype(int)
    assert abs(with_marker - (255, 55, 155)).max() <= 3
    # The same bytes without the marker mean inks that were not inverted: 255 - 0 = 255 of black, too.
    assert without.max() <= 3
    plain = saved(Image.fromarray(255 - np.asarray(inks), mode="CMYK"), "JPEG", quality=100, subsampling=0)
    plain = re.sub(rb"\xff\xee\x00\x0eAdobe.{7}", b"", plain, flags=re.DOTALL)
    assert abs(pixels(plain).astype(int) - (255, 55, 155)).max() <= 3


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "I;16"), ("TIFF", "I;16"), ("PPM", "I;16")])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(kind: str, mode: str) -> None:
    ramp = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    picture = Image.fromarray(ramp)
    assert picture.mode == mode
    expected = np.rint(ramp / 257).astype(np.uint8)
    assert np.array_equal(pixels(saved(picture, kind)), np.repeat(expected[:, :, None], 3, axis=2))


def test_big_endian_sixteen_bit_tiff_is_the_same_picture() -> None:
    ramp = np.arange(0, 65536, 16, dtype=">u2").reshape(64, 64)
    big = saved(Image.frombytes("I;16B", (64, 64), ramp.tobytes()), "TIFF")
    assert np.array_equal(pixels(big), pixels(saved(Image.fromarray(ramp.astype("<u2")), "TIFF")))


def test_a_pgm_of_any_depth_spans_the_whole_range() -> None:
    assert pixels(b"P5 2 1 1000\n" + struct.pack(">2H", 0, 1000))[0, :, 0].tolist() == [0, 255]


def test_floating_point_is_taken_between_0_and_1_and_refused_outside() -> None:
    good = Image.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32))
    assert pixels(saved(good, "TIFF"))[0, :, 0].tolist() == [0, 128, 255]
    for value in (1.5, -0.1, float("nan"), float("inf")):
        bad = Image.fromarray(np.array([[0, value]], dtype=np.float32))
        assert "a floating-point image outside 0..1" in refusal(saved(bad, "TIFF"), "x.tif")


def test_transparency_is_laid_on_white() -> None:
    half = Image.fromarray(np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [255, 0, 0, 128]]], dtype=np.uint8), mode="RGBA")
    assert pixels(saved(half, "PNG"))[0].tolist() == [[255] * 3, [0] * 3, [255, 127, 127]]
    grey = Image.fromarray(np.array([[[0, 0], [100, 255]]], dtype=np.uint8), mode="LA")
    assert pixels(saved(grey, "PNG"))[0].tolist() == [[255] * 3, [100] * 3]


def test_a_palette_with_transparency_is_laid_on_white() -> None:
    picture = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), mode="P")
    picture.putpalette([10, 20, 30, 200, 0, 0, 0, 0, 200])
    assert pixels(saved(picture, "PNG"))[0].tolist() == [[10, 20, 30], [200, 0, 0], [0, 0, 200]]
    for transparency in (1, b"\xff\x00\xff"):
        file = saved(picture, "PNG", transparency=transparency)
        assert pixels(file)[0].tolist() == [[10, 20, 30], [255, 255, 255], [0, 0, 200]]


@pytest.mark.parametrize(
    ("picture", "transparency"),
    [
        (Image.new("RGB", (2, 2), (1, 2, 3)), (1, 2, 3)),
        (Image.new("L", (2, 2), 7), 7),
        (Image.new("1", (2, 2), 0), 0),
    ],
)
def test_a_transparent_colour_is_laid_on_white_too(picture: Image.Image, transparency: Any) -> None:
    assert pixels(saved(picture, "PNG", transparency=transparency)).min() == 255
    assert pixels(saved(picture, "PNG")).max() < 10


def test_one_bit_pictures_are_black_and_white() -> None:
    picture = Image.fromarray(np.array([[True, False, True]]))
    assert picture.mode == "1"
    assert pixels(saved(picture, "PNG"))[0, :, 0].tolist() == [255, 0, 255]


def test_progressive_jpeg_is_the_same_picture() -> None:
    picture = Image.fromarray(QUARTERS)
    assert np.array_equal(pixels(saved(picture, "JPEG", progressive=True)), pixels(saved(picture, "JPEG")))


def test_a_colour_profile_is_ignored() -> None:
    """A documented decision: the recipes behind torchvision's published weights ignore it as well."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert np.array_equal(pixels(saved(Image.fromarray(QUARTERS), "PNG", icc_profile=profile)), QUARTERS)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF"])
def test_the_content_decides_not_the_name(kind: str, tmp_path: Path) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    path = tmp_path / "picture.jpg"
    Image.fromarray(QUARTERS).save(path, kind, **options)
    assert np.array_equal(np.asarray(decode(str(path))), QUARTERS)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    first, *others = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green"))
    options = {"lossless": True} if kind == "WEBP" else {}
    content = saved(first, kind, save_all=True, append_images=others, **options)
    with Image.open(io.BytesIO(content)) as opened:
        assert getattr(opened, "n_frames", 1) == 3
    assert pixels(content)[0, 0].tolist() == [255, 0, 0]


def test_truncated_files_are_refused_at_every_length(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF"):
        whole = saved(noise, kind)
        assert decode(whole).shape == (40, 40, 3)
        path = tmp_path / f"cut.{kind.lower()}"
        for length in np.linspace(0, 0.95 * len(whole), 40).astype(int):
            path.write_bytes(whole[:length])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns about some of them as well
                assert refusal(str(path)).startswith(f"{path}: ")


STRANGERS = {
    "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "text": b"hello\n" * 100,
    "svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n",
    "psd": b"8BPS\x00\x01" + bytes(200),
    "fits": b"SIMPLE  =                    T" + b" " * 2850,
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_what_is_no_supported_image_is_refused_by_name(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*arguments: Any, **options: Any) -> None:
        pytest.fail("an outside program was started (Pillow hands EPS to Ghostscript)")

    monkeypatch.setattr(subprocess, "Popen", started)
    path = tmp_path / "cat.jpg"
    path.write_bytes(STRANGERS[kind])
    assert refusal(str(path)).startswith(f"{path}: not an image of a supported format (JPEG, PNG, ")
    with pytest.raises(ImageError, match=r"cat\.jpg: not an image"):
        image_size(str(path))


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").touch()
    assert refusal(str(tmp_path / "cat.jpg")) == f"{tmp_path / 'cat.jpg'}: the file is empty"


def test_a_zip_is_refused() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("cat.png", saved(Image.fromarray(QUARTERS), "PNG"))
    assert refusal(file.getvalue(), "cat.zip").startswith("cat.zip: not an image")


def test_a_decompression_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(30000, 30000) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b""))
    assert refusal(str(path)) == f"{path}: too large: over 178 million pixels"
    with pytest.raises(ImageError, match="too large"):
        image_size(str(path))


def test_a_compressed_text_or_profile_cannot_fill_the_memory(tmp_path: Path) -> None:
    """100 MiB of zeros take 100 kB in the file, and of the memory no more than Pillow's limit of a few MiB."""
    bomb = zlib.compress(bytes(100 << 20), 9)
    paths = []
    for kind in (b"tEXt", b"zTXt", b"iCCP"):
        content = png_header(1, 1) + png_chunk(kind, b"name\x00\x00" + (b"" if kind == b"tEXt" else bomb))
        paths.append(tmp_path / f"{kind.decode()}.png")
        paths[-1].write_bytes(content + png_chunk(b"IDAT", zlib.compress(bytes(4))) + png_chunk(b"IEND", b""))
    program = """
import contextlib, resource, sys
from imgcls.errors import ImageError
from imgcls.pixels.decode import decode
for path in sys.argv[1:]:
    with contextlib.suppress(ImageError):  # skipping what is too large is as good
        decode(path)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    command = [sys.executable, "-c", program, *map(str, paths)]
    harmless, *peaks = map(int, subprocess.run(command, capture_output=True, check=True).stdout.split())
    assert max(peaks) - harmless < 16 << 10  # kB


def test_pillows_warnings_do_not_reach_the_user(tmp_path: Path) -> None:
    """They name no file, and a photograph of 108 megapixels is none of the user's mistakes."""
    large, spoilt = tmp_path / "large.png", tmp_path / "spoilt.jpg"
    large.write_bytes(png_header(12000, 9000) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b""))
    spoilt.write_bytes(saved(Image.fromarray(QUARTERS), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01"))
    program = "import sys; from imgcls.pixels.decode import image_size; print(*map(image_size, sys.argv[1:]))"
    command = [sys.executable, "-c", program, str(large), str(spoilt)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("(12000, 9000) (40, 24)", "")


def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    fifo, loop, dangling = tmp_path / "fifo.jpg", tmp_path / "loop.jpg", tmp_path / "dangling.jpg"
    os.mkfifo(fifo)
    loop.symlink_to(loop)
    dangling.symlink_to("nowhere")
    assert refusal(str(fifo)) == f"{fifo}: not a regular file"
    assert refusal("/dev/zero") == "/dev/zero: not a regular file"
    assert refusal(str(tmp_path)) == f"{tmp_path}: not a regular file"
    for gone in (loop, dangling, tmp_path / "missing.jpg"):
        assert refusal(str(gone)) == f"{gone}: no such file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(QUARTERS).save(path)
    path.chmod(0)
    assert refusal(str(path)) == f"{path}: permission denied"


def test_mutated_files_give_a_picture_or_an_image_error() -> None:
    generator = np.random.default_rng(1)
    noise = Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF"):
        whole = np.frombuffer(saved(noise, kind), dtype=np.uint8)
        for _ in range(60):
            mutant = whole.copy()
            places = generator.integers(0, min(len(whole), 400), 4)
            mutant[places] = generator.integers(0, 256, 4)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    assert decode(mutant.tobytes(), "mutant").shape[2] == 3
                except ImageError as error:
                    assert str(error).startswith("mutant: ")


def drawn(width: int, height: int) -> Image.Image:
    """Waves with some noise: what a JPEG file loses of it is little, and every pixel differs from its neighbours."""
    generator = np.random.default_rng(width * 10007 + height)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    waves = [128 + 100 * np.sin(x / 9 + phase) * np.cos(y / 7 - phase) for phase in range(3)]
    noisy = np.stack(waves, axis=2) + generator.normal(0, 5, (height, width, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def pillows(source: str | bytes) -> Pixels:
    """What Pillow alone makes of a file."""
    with Image.open(source if isinstance(source, str) else io.BytesIO(source)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def outcome(content: bytes, shorter: int | None = None) -> Pixels | str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return decode(content, "file", shorter)
        except ImageError as error:
            return str(error)


JPEGS: dict[str, dict[str, Any]] = {
    **{f"quality {quality}": {"quality": quality} for quality in (1, 30, 75, 95, 100)},
    **{f"subsampling {kind}": {"subsampling": kind, "quality": 90} for kind in ("4:4:4", "4:2:2", "4:2:0")},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "restart markers": {"restart_marker_blocks": 1},
    "restart markers for rows": {"restart_marker_rows": 1, "progressive": True},
    "RGB, as Adobe's marker says": {"keep_rgb": True},
    "with a profile": {"icc_profile": b"x" * 70000},  # two segments
}
ODD_SIZES = [(1, 1), (1, 9), (2, 2), (7, 3), (15, 17), (33, 57), (130, 64)]


@pytest.mark.parametrize("kind", [*JPEGS, "grey"])
def test_jpeg_files_become_the_very_pixels_of_pillow_without_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [drawn(*size).convert("L" if kind == "grey" else "RGB") for size in ODD_SIZES]
    contents = [saved(picture, "JPEG", **JPEGS.get(kind, {})) for picture in pictures]
    expected = [pillows(content) for content in contents]
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("Pillow decodes, which takes longer"))
    for content, those in zip(contents, expected, strict=True):
        assert np.array_equal(decode(content), those)


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411", "Gray"])
def test_every_subsampling_becomes_the_pixels_of_pillow(subsampling: str) -> None:
    """Pillow cannot write 4:4:0 and 4:1:1; cameras do."""
    for size in ODD_SIZES:
        whole = np.asarray(drawn(*size))
        grey = {"image": whole[:, :, :1].copy(), "colorspace": "GRAY"}
        content = simplejpeg.encode_jpeg(
            **(grey if subsampling == "Gray" else {"image": whole}), quality=90, colorsubsampling=subsampling
        )
        assert np.array_equal(decode(content), pillows(content))


def test_the_first_of_several_jpeg_pictures_is_given() -> None:
    content = saved(drawn(40, 30), "MPO", save_all=True, append_images=[drawn(30, 40)], quality=90)
    with Image.open(io.BytesIO(content)) as opened:
        assert (opened.format, getattr(opened, "n_frames", 1)) == ("MPO", 2)
    assert np.array_equal(decode(content), pillows(content))
    assert decode(content, shorter=15).shape == (15, 20, 3)


def test_photographs_become_the_pixels_of_pillow(photographs: Path) -> None:
    paths = sorted(photographs.glob("*/*/*.jpg"))[::13]
    assert len(paths) > 25
    for path in paths:
        whole = decode(str(path))
        assert np.array_equal(whole, pillows(str(path))), path.name
        small, divisor = decode(str(path), shorter=100), 1 << (min(whole.shape[:2]) // 100).bit_length() - 1
        averaged = np.asarray(Image.fromarray(whole).reduce(divisor))
        assert abs(small.astype(int) - averaged).mean() < 3, path.name


def test_cifar10_in_jpeg_files_becomes_the_pixels_of_pillow(cifar10_files: Iterator[tuple[str, bytes]]) -> None:
    for name, content in islice(cifar10_files, 60):
        assert np.array_equal(decode(content), pillows(content)), name


def test_a_damaged_jpeg_is_what_pillow_alone_makes_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repaired in Pillow's way or refused in its words; never another repair."""
    generator = np.random.default_rng(2)
    repaired = refused = 0
    for options in ({}, {"progressive": True}, {"restart_marker_blocks": 2}, {"keep_rgb": True}):
        whole = saved(drawn(50, 40), "JPEG", **options)
        begin = whole.rindex(b"\xff\xda")  # of the last scan
        for number in range(60):
            mutant = np.frombuffer(whole, dtype=np.uint8).copy()
            places = generator.integers(begin if number % 3 else 2, len(whole), 3)
            mutant[places] = generator.integers(0, 256, 3)
            content = mutant.tobytes()
            if number % 5 == 0:
                content = content[: places[0]] + content[places[0] + 3 :]
            for shorter in (None, 10):
                ours = outcome(content, shorter)
                with monkeypatch.context() as patch:
                    patch.setattr(simplejpeg, "decode_jpeg", _refuse)
                    expected = outcome(content, shorter)
                if isinstance(expected, str):
                    assert isinstance(ours, str)
                    assert ours == expected
                    refused += 1
                elif shorter is None:
                    assert np.array_equal(ours, expected)
                    repaired += 1
                else:
                    assert not isinstance(ours, str)
                    assert ours.shape == expected.shape
    assert repaired > 50
    assert refused > 50


def _refuse(*arguments: Any, **options: Any) -> None:
    raise ValueError("damaged")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (40, 30), (64, 64), (257, 130), (90, 700)])
def test_a_picture_may_be_given_at_a_fraction_of_its_size(kind: str, size: tuple[int, int]) -> None:
    content = saved(drawn(*size), kind)
    whole, side = decode(content), min(size)
    for shorter in (1, 2, 5, 8, 16, 30, 33, 64, 65, 1000):
        small = decode(content, shorter=shorter)
        assert small.shape[1::-1] == reduced_size(*size, shorter)
        if side >= 2 * shorter:
            assert shorter <= min(small.shape[:2]) <= 2 * shorter
        else:
            assert np.array_equal(small, whole)


@pytest.mark.parametrize("divisor", [2, 4, 8, 16, 32])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_fraction_of_the_size_is_an_average_over_areas(mode: str, divisor: int) -> None:
    picture = drawn(515, 401).convert(mode)
    shorter = -(-401 // (2 * divisor)) + 1
    expected = np.asarray(picture.convert("RGB").reduce(divisor)).astype(int)
    assert np.array_equal(decode(saved(picture, "PNG"), shorter=shorter), expected)
    for options in ({}, {"progressive": True}, {"subsampling": 0}):
        scaled = decode(saved(picture, "JPEG", quality=95, **options), shorter=shorter)
        assert scaled.shape == expected.shape
        assert abs(scaled - expected).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_a_fraction_of_the_size_is_upright_too(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    large = Image.fromarray(STORED[orientation].repeat(8, axis=0).repeat(8, axis=1))
    small = decode(saved(large, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {})), shorter=24)
    assert small.shape == QUARTERS.shape
    assert abs(small.astype(int) - QUARTERS).max() <= (8 if kind == "JPEG" else 0)


@pytest.mark.parametrize("mode", ["CMYK", "RGBA", "P", "I;16", "1"])
def test_a_fraction_of_other_kinds_has_their_colours(mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    grey = np.full((64, 64), 100 * 257, dtype=np.uint16)
    picture = Image.fromarray(grey) if mode == "I;16" else Image.new("RGB", (64, 64), "white").convert(mode)
    content = saved(picture, kind)
    assert np.array_equal(decode(content, shorter=16), decode(content)[::4, ::4])


def test_a_fraction_is_refused_in_the_words_of_the_whole() -> None:
    cut = {kind: saved(drawn(80, 80), kind)[:900] for kind in ("JPEG", "PNG", "WEBP", "TIFF")}
    for kind, content in {**cut, "text": b"hello", "bomb": png_header(30000, 30000)}.items():
        whole, fraction = outcome(content), outcome(content, 20)
        assert isinstance(whole, str), kind
        assert fraction == whole


def test_what_follows_a_jpeg_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tail.jpg"
    Image.fromarray(QUARTERS).save(path, quality=95)
    expected = decode(str(path))
    monkeypatch.setattr("imgcls.pixels.decode.MOST_METADATA", 100_000)
    with path.open("ab") as file:
        file.truncate(1 << 30)  # a hole: it takes no disk
    monkeypatch.setattr(simplejpeg, "decode_jpeg", None)  # never reached
    assert np.array_equal(decode(str(path)), expected)
