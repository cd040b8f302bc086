"""A sound picture is not refused for what stands beside its pixels, and no library prints what it thinks of it."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import GREY, RGB, chunk, png, samples, tiff
from PIL import Image

from imgcls.errors import ImageError
from imgcls.pixels.decode import decode, image_size
from imgcls.pixels.metadata import without_metadata

PICTURE = samples(3, 8)
HEIGHT, WIDTH, _ = PICTURE.shape
TURN = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"  # EXIF: on its side
LARGE = zlib.compress(bytes(1_500_000))


def wrong(kind: bytes, content: bytes) -> bytes:
    """A chunk with a wrong checksum."""
    return chunk(kind, content)[:-4] + b"\0\1\2\3"


CHUNKS = {
    "gamma with a wrong checksum": wrong(b"gAMA", struct.pack(">I", 45455)),
    "private chunk with a wrong checksum": wrong(b"abCd", b"x"),
    "orientation with a wrong checksum": wrong(b"eXIf", TURN),
    "1.5 MB of text": chunk(b"zTXt", b"XMP\0\0" + LARGE),
    "1.5 MB of international text": chunk(b"iTXt", b"XMP\0\1\0\0\0" + LARGE),
    "1.5 MB of profile": chunk(b"iCCP", b"name\0\0" + LARGE),
    "text packed in another way": chunk(b"zTXt", b"XMP\0\5" + LARGE),
    "short profile": chunk(b"iCCP", b"a"),
    "short gamma": chunk(b"gAMA", b"\0"),
    "short resolution": chunk(b"pHYs", b""),
    "short animation": chunk(b"acTL", b""),
    "animation out of order": chunk(b"fcTL", struct.pack(">I", 7) + bytes(22)),
    "nonsense for EXIF": chunk(b"eXIf", b"II*\0nonsense"),
}


def png_with(extra: bytes, after: bytes = b"") -> bytes:
    content = png(PICTURE, 8, 2, extra)
    return content[:-12] + after + content[-12:]


@pytest.mark.parametrize("name", CHUNKS)
def test_a_png_is_its_picture_whatever_its_metadata(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png_with(CHUNKS[name]))
    assert np.array_equal(decode(str(path)), PICTURE)
    assert image_size(str(path)) == (WIDTH, HEIGHT)
    if "EXIF" not in name and "orientation" not in name:  # of which those at the end count, too
        assert np.array_equal(decode(png_with(b"", CHUNKS[name])), PICTURE)


def test_the_orientation_and_the_transparent_colour_outlive_broken_metadata() -> None:
    broken = CHUNKS["gamma with a wrong checksum"]
    assert np.array_equal(decode(png_with(broken + chunk(b"eXIf", TURN))), np.rot90(PICTURE, -1))
    colour = PICTURE[5, 5]
    white = np.where((colour == PICTURE).all(axis=2, keepdims=True), 255, PICTURE)
    key = chunk(b"tRNS", colour.astype(">u2").tobytes())
    assert np.array_equal(decode(png_with(key + broken)), white)


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"tRNS"])
def test_a_wrong_checksum_of_what_decides_pixels_is_refused(kind: bytes) -> None:
    content = png_with(chunk(b"tRNS", bytes(6)) + chunk(b"PLTE", bytes(3)) + CHUNKS["short gamma"])
    place = content.index(kind)
    length = int.from_bytes(content[place - 4 : place], "big")
    damaged = bytearray(content)
    damaged[place + 4 + length] ^= 1
    with pytest.raises(ImageError, match=f"a damaged PNG file .*checksum in b'{kind.decode()}'"):
        decode(bytes(damaged))


def test_a_png_that_is_cut_off_stays_refused_at_every_length() -> None:
    whole = png_with(CHUNKS["gamma with a wrong checksum"], chunk(b"tEXt", b"a\0" + b"b" * 300))
    assert np.array_equal(decode(whole), PICTURE)
    for length in range(8, len(whole) - 16, 7):
        with pytest.raises(ImageError):
            decode(whole[:length])


def test_bombs_are_refused_from_the_header_and_take_little_memory() -> None:
    bomb = chunk(b"zTXt", b"XMP\0\0" + zlib.compress(bytes(200 << 20), 9)) * 3
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0))
    tracemalloc.start()
    assert np.array_equal(decode(png_with(bomb)), PICTURE)
    assert np.array_equal(decode(png_with(bomb.replace(b"zTXt", b"iCCP"))), PICTURE)
    with pytest.raises(ImageError, match="too large: over 178 million pixels"):
        decode(b"\x89PNG\r\n\x1a\n" + header + CHUNKS["short gamma"] + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


def test_what_is_too_large_to_be_copied_stays_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.PngImagePlugin.MAX_TEXT_MEMORY", 1000)
    content = png_with(chunk(b"tEXt", b"XMP\0" + b"a" * 2000))
    assert np.array_equal(decode(content), PICTURE)
    monkeypatch.setattr("imgcls.pixels.metadata.MOST", 1000)
    assert without_metadata(content) is None
    with pytest.raises(ImageError, match="Too much memory used in text chunks"):
        decode(content)


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 255, marker, len(content) + 2) + content


SEGMENTS = {
    "short Photoshop block": segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x03\xed"),
    "short profile": segment(0xE2, b"ICC_PROFILE\0"),
    "short JFIF": segment(0xE0, b"JFIF"),
    "short Adobe": segment(0xEE, b"Adobe"),
    "short list of pictures": segment(0xE2, b"MPF\0"),
    "60 kB of EXIF": segment(0xE1, b"Exif\0\0" + bytes(60_000)),
    "nonsense for EXIF": segment(0xE1, b"Exif\0\0II*\0nonsense"),
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # as the decoder itself has it
@pytest.mark.parametrize("name", SEGMENTS)
def test_a_jpeg_is_its_picture_whatever_its_metadata(name: str, tmp_path: Path) -> None:
    file, path = io.BytesIO(), tmp_path / "x.jpg"
    Image.fromarray(PICTURE).save(file, "JPEG", quality=95)
    plain = file.getvalue()
    path.write_bytes(plain[:2] + SEGMENTS[name] + plain[2:])
    assert np.array_equal(decode(str(path)), decode(plain))
    turned = plain[:2] + segment(0xE1, b"Exif\0\0" + TURN) + SEGMENTS["short profile"] + plain[2:]
    assert np.array_equal(decode(turned), np.rot90(decode(plain), -1))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_tiff_is_its_picture_whatever_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    tags: dict[str, Any]
    for tag in ("t270", "t271", "t305", "t700", "t33723", "t34665", "t34675", "t34853", "t65000"):
        for numbers in ((0,), (7, 7), (2**32 - 1,) * 3):
            for compression in (1, 8):
                tags = {tag: numbers}
                path.write_bytes(tiff(PICTURE, RGB, compression=compression, **tags))
                assert np.array_equal(decode(str(path)), PICTURE), (tag, numbers)
                assert image_size(str(path)) == (WIDTH, HEIGHT)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_tiff_that_is_cut_off_stays_refused_at_every_length() -> None:
    for compression in (1, 8):
        whole = tiff(PICTURE, RGB, compression=compression, t270=(7, 7))
        assert np.array_equal(decode(whole), PICTURE)
        for length in range(len(whole) - 5, len(whole) - 300, -1):  # four bytes say that no page follows
            with pytest.raises(ImageError):
                decode(whole[:length])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_no_library_prints_what_it_thinks_of_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Libtiff writes to the process's own error stream, Pillow logs."""
    private = tiff(PICTURE, RGB, compression=8, t65000=(1, 2, 3))
    damaged = tiff(PICTURE, RGB, compression=8).replace(zlib.compress(PICTURE.tobytes()), bytes(40))
    unknown = tiff(GREY, compression=32809)
    channels = tiff(samples(13, 8), RGB, extras=(0,) * 10)
    generator = np.random.default_rng(5)
    mutants = [np.frombuffer(private, dtype=np.uint8).copy() for _ in range(60)]
    for mutant in mutants:
        mutant[generator.integers(0, len(mutant), 5)] = generator.integers(0, 256, 5)
    for number, content in enumerate((private, damaged, unknown, channels, *(mutant.tobytes() for mutant in mutants))):
        path = tmp_path / f"{number}.tif"
        path.write_bytes(content)
        for source in (str(path), content):
            try:
                decode(source)
            except ImageError as error:
                assert "\n" not in str(error)
    assert capfd.readouterr() == ("", "")
