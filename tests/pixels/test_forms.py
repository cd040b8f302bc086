"""The forms of TIFF, PNG, BMP and PPM files: each becomes the picture that its numbers mean, or is refused by name.

The files are made here from arrays, and what they mean is worked out from the same arrays.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from image_files import (
    ALPHA,
    BLACK_IS_ZERO,
    CMYK,
    COLOUR,
    COLOURS,
    DEFLATE,
    FLOAT,
    GREY,
    HEIGHT,
    LAB,
    PALETTE,
    PREMULTIPLIED,
    RAW,
    RGB,
    SIGNED,
    UNSPECIFIED,
    WHITE_IS_ZERO,
    WIDE,
    WIDE_COLOUR,
    WIDTH,
    YCBCR,
    Samples,
    chunk,
    packed,
    png,
    samples,
    tiff,
)
from PIL import Image

from imgcls.errors import ImageError
from imgcls.pixels.decode import decode, depth, image_size

Levels = npt.NDArray[np.float64]  # [height, width, 3], 0..255


def shown(values: Samples, photometric: int, bits: int, extras: tuple[int, ...] = ()) -> Levels:
    """What the numbers of a TIFF mean, laid on white."""
    shares = values / (2**bits - 1)
    meanings: dict[int, Callable[[], Levels]] = {
        WHITE_IS_ZERO: lambda: 1 - shares[:, :, :1],
        BLACK_IS_ZERO: lambda: shares[:, :, :1],
        RGB: lambda: shares[:, :, :3],
        PALETTE: lambda: COLOURS[values[:, :, 0]] / 255,
        CMYK: lambda: (1 - shares[:, :, :3]) * (1 - shares[:, :, 3:4]),
    }
    colours = meanings[photometric]()
    if ALPHA in extras or PREMULTIPLIED in extras:
        alpha = shares[:, :, -len(extras) :][:, :, :1]
        colours = colours * (alpha if ALPHA in extras else 1) + 1 - alpha
    return np.broadcast_to(255 * colours, (HEIGHT, WIDTH, 3))


def differs(content: bytes, expected: Levels, path: Path) -> float:
    """The largest difference of the decoded picture, the same from a file and from memory."""
    path.write_bytes(content)
    pixels = decode(str(path))
    assert np.array_equal(pixels, decode(content))
    assert pixels.shape == expected.shape
    return round(float(np.abs(pixels - expected).max()), 6)


def refusal(content: bytes, path: Path) -> str:
    path.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        decode(str(path))
    words = str(caught.value)
    assert words.startswith(f"{path}: ")
    assert "\n" not in words
    return words.removeprefix(f"{path}: ")


LITTLE, BOTH = ("<",), ("<", ">")
# photometric interpretation, bits, extra channels, byte orders, largest difference
TIFFS = {
    **{f"{bits}-bit grey": (BLACK_IS_ZERO, bits, (), BOTH, 1) for bits in (1, 2, 4, 8, 16)},
    **{f"{bits}-bit white-is-zero": (WHITE_IS_ZERO, bits, (), BOTH, 1) for bits in (1, 2, 4, 8)},
    **{f"{bits}-bit palette": (PALETTE, bits, (), BOTH, 0) for bits in (1, 2, 4, 8)},
    "16-bit white-is-zero": (WHITE_IS_ZERO, 16, (), LITTLE, 1),
    "12-bit grey": (BLACK_IS_ZERO, 12, (), LITTLE, 1),
    "grey with alpha": (BLACK_IS_ZERO, 8, (ALPHA,), BOTH, 1),
    "grey with premultiplied alpha": (BLACK_IS_ZERO, 8, (PREMULTIPLIED,), BOTH, 1),
    "RGB": (RGB, 8, (), BOTH, 0),
    "RGB with alpha": (RGB, 8, (ALPHA,), BOTH, 1),
    "RGB with premultiplied alpha": (RGB, 8, (PREMULTIPLIED,), BOTH, 1),
    "RGB with another channel": (RGB, 8, (UNSPECIFIED,), BOTH, 0),
    "16-bit RGB": (RGB, 16, (), BOTH, 1),
    "16-bit RGB with alpha": (RGB, 16, (ALPHA,), BOTH, 2),
    "16-bit RGB with premultiplied alpha": (RGB, 16, (PREMULTIPLIED,), BOTH, 3),
    "palette with alpha": (PALETTE, 8, (ALPHA,), BOTH, 1),
    "CMYK": (CMYK, 8, (), BOTH, 1),
    "16-bit CMYK": (CMYK, 16, (), BOTH, 2),
}


@pytest.mark.parametrize("name", TIFFS)
def test_a_tiff_becomes_the_picture_that_its_numbers_mean(name: str, tmp_path: Path) -> None:
    photometric, bits, extras, orders, most = TIFFS[name]
    channels = {RGB: 3, CMYK: 4}.get(photometric, 1)
    values = samples(channels + len(extras), bits)
    if PREMULTIPLIED in extras:
        values[:, :, :channels] = np.minimum(values[:, :, :channels], values[:, :, channels:])
    tags: dict[str, Any] = (
        {"t320": tuple((257 * COLOURS[: 2**bits].T).flatten().tolist())} if photometric == PALETTE else {}
    )
    expected = shown(values, photometric, bits, extras)
    for order, compression, tiled, rows in product(orders, (RAW, DEFLATE), (False, True), (5, HEIGHT)):
        layout: dict[str, Any] = {"order": order, "compression": compression, "tiled": tiled, "rows": rows}
        content = tiff(values, photometric, bits=bits, extras=extras, **layout, **tags)
        assert differs(content, expected, tmp_path / "x.tif") <= most, layout
        assert depth(str(tmp_path / "x.tif")) == bits


@pytest.mark.parametrize("photometric", [RGB, CMYK])
@pytest.mark.parametrize(("bits", "compressions"), [(8, (RAW, DEFLATE)), (16, (DEFLATE,))])
def test_planes_stored_one_after_the_other(
    photometric: int, bits: int, compressions: tuple[int, ...], tmp_path: Path
) -> None:
    values = samples(3 if photometric == RGB else 4, bits)
    expected = shown(values, photometric, bits)
    for order, compression, tiled in product(BOTH, compressions, (False, True)):
        content = tiff(values, photometric, apart=True, order=order, compression=compression, tiled=tiled)
        assert differs(content, expected, tmp_path / "x.tif") <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits", [8, 16])
def test_a_turned_grey_tiff_is_upright_from_a_file_too(bits: int, orientation: int, tmp_path: Path) -> None:
    """Pillow maps such a file into memory with its sides swapped."""
    expected = shown(samples(1, bits), BLACK_IS_ZERO, bits)
    stored = [expected, expected[:, ::-1], expected[::-1, ::-1], expected[::-1]]
    upright = (stored + [turned.transpose(1, 0, 2) for turned in (stored[0], stored[3], stored[2], stored[1])])[
        orientation - 1
    ]
    path = tmp_path / "x.tif"
    assert differs(tiff(samples(1, bits), t274=(orientation,)), upright, path) <= 1
    assert image_size(str(path)) == upright.shape[1::-1]


def test_floating_point_in_either_byte_order(tmp_path: Path) -> None:
    values = (samples(1, 16) / 65535).astype(np.float32)
    expected = shown(samples(1, 16), BLACK_IS_ZERO, 16)
    for order, compression in (("<", RAW), ("<", DEFLATE), (">", RAW)):
        content = tiff(values, kind=FLOAT, order=order, compression=compression)
        assert differs(content, expected, tmp_path / "x.tif") <= 1


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "jpeg", "zstd", "lzma", "tiff_adobe_deflate"])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCbCr"])
def test_every_compression_gives_the_picture(mode: str, compression: str) -> None:
    picture = Image.fromarray(samples(3, 8)).convert(mode)
    file = io.BytesIO()
    picture.save(file, "TIFF", compression=compression, **({"quality": 100} if compression == "jpeg" else {}))
    expected = np.asarray(picture.convert("RGB")).astype(int)
    most = 6 if compression == "jpeg" else 3 if mode == "YCbCr" else 0
    assert abs(decode(file.getvalue()) - expected).max() <= most


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO])
def test_a_fax_is_black_on_white(compression: str, photometric: int) -> None:
    picture, file = Image.fromarray(samples(1, 8)[:, :, 0] > 100), io.BytesIO()
    picture.save(file, "TIFF", compression=compression, tiffinfo={262: photometric})
    assert np.array_equal(decode(file.getvalue()), np.asarray(picture.convert("RGB")))


def test_jpeg_of_the_old_style_gives_the_picture(tmp_path: Path) -> None:
    jpeg = io.BytesIO()
    Image.fromarray(samples(3, 8)).save(jpeg, "JPEG", quality=100, subsampling=0)
    where = {"t513": (8,), "t514": (len(jpeg.getvalue()),), "t530": (1, 1)}
    content = tiff(samples(3, 8), YCBCR, compression=6, strip=jpeg.getvalue(), **where)  # type: ignore[arg-type]
    assert differs(content, samples(3, 8).astype(np.float64), tmp_path / "x.tif") <= 6


@pytest.mark.parametrize("extras", [(), (999,)])
def test_a_fourth_channel_beside_rgb_is_alpha_as_many_programs_mean_it(extras: tuple[int, ...], tmp_path: Path) -> None:
    values = samples(4, 8)
    expected = shown(values, RGB, 8, (ALPHA,))
    assert differs(tiff(values, RGB, extras=extras), expected, tmp_path / "x.tif") <= 1


def test_lab_colours_within_the_precision_of_its_conversion() -> None:
    """By the formulas of CIELab (D50) and sRGB, on colours that sRGB has."""
    linear = ((samples(3, 8) / 255 * 0.8 + 0.1 + 0.055) / 1.055) ** 2.4
    matrix = [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
    x, y, z = np.moveaxis(np.cbrt(linear @ np.transpose(matrix) / (0.9642, 1, 0.8249)), 2, 0)
    lab = np.rint(np.stack([(116 * y - 16) * 2.55, 500 * (x - y), 200 * (y - z)], axis=2)).astype(int)
    expected = 255 * (1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(decode(tiff((lab % 256).astype(np.uint8), LAB)) - expected).mean() < 1.5


REFUSED: dict[str, tuple[bytes, str]] = {
    "int8": (tiff(GREY, kind=SIGNED), "a TIFF with signed 8-bit values: save it as unsigned"),
    "int16": (tiff(WIDE, kind=SIGNED), "a TIFF with signed 16-bit values: save it as unsigned"),
    "int16, big-endian": (tiff(WIDE, kind=SIGNED, order=">"), "a TIFF with signed 16-bit values"),
    "int16, compressed": (tiff(WIDE, kind=SIGNED, compression=DEFLATE), "a TIFF with signed 16-bit values"),
    "int32": (tiff(samples(1, 31), kind=SIGNED), "a TIFF with signed 32-bit values: save it as unsigned 16-bit"),
    "uint32": (tiff(samples(1, 32)), "a TIFF with 32-bit grey: save it with 8 or 16 bits"),
    "white-is-zero, big-endian": (
        tiff(WIDE, WHITE_IS_ZERO, order=">"),
        "a TIFF with 16-bit white-is-zero grey in big-endian byte order",
    ),
    "12 bits, big-endian": (tiff(samples(1, 12), bits=12, order=">"), "a TIFF with 12-bit grey in big-endian"),
    "12-bit white-is-zero": (tiff(samples(1, 12), WHITE_IS_ZERO, bits=12), "a TIFF with 12-bit white-is-zero grey"),
    "12-bit RGB": (tiff(samples(3, 12), RGB, bits=12), "a TIFF with 12-bit RGB: save it with 8 or 16 bits"),
    "16-bit planes": (
        tiff(WIDE_COLOUR, RGB, apart=True),
        "a TIFF with 16-bit RGB whose channels are stored one after the other without compression: save it interleaved",
    ),
    "planes in reverse bits": (tiff(COLOUR, RGB, apart=True, t266=(2,)), "a TIFF with 8-bit RGB whose channels are"),
    "RGB and another channel in planes": (
        tiff(samples(4, 8), RGB, extras=(UNSPECIFIED,), apart=True),
        "a TIFF with 8-bit RGB whose channels are stored one after the other without compression: save it interleaved",
    ),
    "grey and alpha in planes": (
        tiff(samples(2, 8), extras=(ALPHA,), apart=True, compression=DEFLATE),
        "a TIFF with 8-bit grey whose channels are stored one after the other: save it interleaved",
    ),
    "16-bit grey and alpha": (tiff(samples(2, 16), extras=(ALPHA,)), "a TIFF with 16-bit grey and 1 extra channel"),
    "13 channels": (tiff(samples(13, 8), RGB, extras=(0,) * 10), "a TIFF with 8-bit RGB and 10 extra channels"),
    "two channels": (tiff(samples(2, 8)), "a TIFF with 2 channels where grey has 1: save it as RGB"),
    "double": (tiff(GREY / 255, kind=FLOAT), "a TIFF with 64-bit floating-point values (grey)"),
    "float RGB": (tiff((COLOUR / 255).astype(np.float32), RGB, kind=FLOAT), "a TIFF with 32-bit floating-point values"),
    "white-is-zero float": (
        tiff((GREY / 255).astype(np.float32), WHITE_IS_ZERO, kind=FLOAT),
        "a TIFF with 32-bit floating-point values (white-is-zero grey)",
    ),
    "float, swapped twice": (  # tiny numbers when the bytes are swapped
        tiff(np.zeros_like(GREY, dtype=np.float32), kind=FLOAT, order=">", compression=DEFLATE),
        "a TIFF with compressed floating-point values in big-endian byte order",
    ),
    "no photometric": (tiff(GREY, None), "a TIFF that does not say whether 0 is black or white"),
    "mask": (tiff(GREY, 4), "a TIFF with photometric interpretation 4: save it as RGB"),
    "raw camera data": (tiff(WIDE, 32803), "a TIFF with photometric interpretation 32803"),
    "8-bit palette": (
        tiff(GREY, PALETTE, t320=tuple(COLOURS.T.flatten().tolist())),
        "a TIFF whose palette has 8-bit colours",
    ),
    "other inks": (tiff(samples(4, 8), CMYK, t332=(2,)), "a TIFF with other inks than CMYK"),
    "subsampled": (tiff(COLOUR, YCBCR, t530=(2, 2)), "a TIFF with subsampled YCbCr and no compression"),
    "LAB planes": (tiff(COLOUR, LAB, apart=True), "a TIFF with 8-bit CIELab whose channels are stored"),
    "JPEG 2000": (tiff(GREY, compression=34712), "a TIFF with compression 34712 (JPEG 2000): save it with LZW or"),
    "LERC": (tiff(GREY, compression=34887), "a TIFF with compression 34887 (LERC)"),
    "another compression": (tiff(GREY, compression=65000), "a TIFF with compression 65000 (unknown)"),
    "BigTIFF": (b"MM\0+\0\x08\0\0" + bytes(64), "a BigTIFF in big-endian byte order"),
    "cut off": (b"II*\0\x08\0", "a damaged TIFF file (its header is cut off)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_tiffs_are_refused_by_their_form(name: str, tmp_path: Path) -> None:
    content, words = REFUSED[name]
    assert refusal(content, tmp_path / "x.tif").startswith(words)
    with pytest.raises(ImageError):
        image_size(str(tmp_path / "x.tif"))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("bits", "channels"), [(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (8, 3), (16, 3)])
def test_the_transparent_colour_of_a_png_is_laid_on_white_at_any_depth(
    bits: int, channels: int, interlaced: bool, tmp_path: Path
) -> None:
    """And no other colour: not the one beside it, which is the same in 8 bits."""
    values = samples(channels, bits)
    colour = values[7, 25].copy()
    values[3, 3] = colour ^ np.array([0] * (channels - 1) + [1], dtype=colour.dtype)
    expected = shown(values, RGB if channels == 3 else BLACK_IS_ZERO, bits)
    key = chunk(b"tRNS", colour.astype(">u2").tobytes())
    kind = 2 if channels == 3 else 0
    path = tmp_path / "x.png"
    assert differs(png(values, bits, kind, interlaced=interlaced), expected, path) <= 1
    assert depth(str(path)) == bits
    white = np.where((values == colour).all(axis=2, keepdims=True), 255, expected)
    assert (white != expected).any()
    assert differs(png(values, bits, kind, key, interlaced), white, path) <= 1


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [2, 4])
def test_the_alpha_of_a_png_is_laid_on_white(bits: int, channels: int, tmp_path: Path) -> None:
    values = samples(channels, bits)
    expected = shown(values, RGB if channels == 4 else BLACK_IS_ZERO, bits, (ALPHA,))
    assert differs(png(values, bits, 6 if channels == 4 else 4), expected, tmp_path / "x.png") <= 2


def bmp(values: Samples, bits: int, *, masks: tuple[int, ...] = (), palette: Samples | None = None) -> bytes:
    """Write a BMP; with masks of red, green, blue and alpha its header is of version 3."""
    rows = [packed(row[None], bits, "<") for row in values[::-1]]
    body = b"".join(row + bytes(-len(row) % 4) for row in rows)
    colours = b"".join(bytes([blue, green, red, 0]) for red, green, blue in ([] if palette is None else palette))
    size = 56 if masks else 40
    count = len(colours) // 4
    header = struct.pack("<IiiHHIIiiII", size, WIDTH, HEIGHT, 1, bits, 3 if masks else 0, 0, 0, 0, count, 0)
    header += struct.pack(f"<{len(masks)}I", *masks)
    start = 14 + len(header) + len(colours)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + colours + body


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_a_bmp_has_the_colours_of_its_palette(bits: int, tmp_path: Path) -> None:
    values = samples(1, bits)
    expected = shown(values, PALETTE, bits)
    assert differs(bmp(values, bits, palette=COLOURS[: 2**bits]), expected, tmp_path / "x.bmp") == 0


def test_a_bmp_of_masked_bits_has_its_colours(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 2**32, (HEIGHT, WIDTH, 1)).astype(np.uint32)
    for bits, masks in (
        (16, (0xF800, 0x7E0, 0x1F, 0)),
        (16, (0x7C00, 0x3E0, 0x1F, 0)),
        (32, (0xFF0000, 0xFF00, 0xFF, 0)),
        (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
    ):
        stored = values if bits == 32 else values.astype(np.uint16)
        red, green, blue, alpha = ((stored & mask) / mask if mask else np.ones(stored.shape) for mask in masks)
        expected = 255 * (np.concatenate([red, green, blue], axis=2) * alpha + 1 - alpha)
        assert differs(bmp(stored, bits, masks=masks), expected, tmp_path / "x.bmp") <= 1


BLACK_AND_WHITE = np.array([[0, 0, 0], [255, 255, 255]])
BMPS = {
    "8 bits, two colours": (bmp(samples(1, 1), 8, palette=BLACK_AND_WHITE), "a BMP with 8 bits and a palette of greys"),
    "4 bits, two colours": (bmp(samples(1, 1), 4, palette=BLACK_AND_WHITE), "a BMP with 4 bits and a palette of greys"),
    "16 bits with alpha": (
        bmp(WIDE, 16, masks=(0x7C00, 0x3E0, 0x1F, 0x8000)),
        "a BMP with 16 bits and transparency: save it as PNG",
    ),
    "ten bits": (
        bmp(samples(1, 32), 32, masks=(0x3FF00000, 0xFFC00, 0x3FF, 0)),
        "unsupported BMP bitfields layout: save it as PNG",
    ),
}


@pytest.mark.parametrize("name", BMPS)
def test_other_bmps_are_refused_by_their_form(name: str, tmp_path: Path) -> None:
    content, words = BMPS[name]
    assert refusal(content, tmp_path / "x.bmp").startswith(words)


@pytest.mark.parametrize("most", [1, 100, 255, 256, 1000, 4095, 65535])
def test_a_ppm_of_any_depth_spans_the_whole_range(most: int, tmp_path: Path) -> None:
    values = np.random.default_rng(most).integers(0, most + 1, (HEIGHT, WIDTH, 3))
    for letters, stored in ((b"52", values[:, :, :1]), (b"63", values)):
        expected = np.broadcast_to(stored * (255 / most), values.shape)
        numbers = stored.astype(">u2" if most > 255 else "u1").tobytes()
        plain = " ".join(map(str, stored.flatten().tolist())).encode()
        for letter, content in zip(letters, (numbers, plain), strict=True):
            head = b"P%c %d %d %d\n" % (letter, WIDTH, HEIGHT, most)
            assert differs(head + content, expected, tmp_path / "x.ppm") <= 1
            assert depth(str(tmp_path / "x.ppm")) == (16 if most > 255 else 8)


JPEG_START = b"\xff\xd8\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0"


def frame(marker: int, bits: int = 8, channels: int = 3) -> bytes:
    parts = b"".join(bytes([number, 0x11, 0]) for number in range(channels))
    return JPEG_START + struct.pack(">BBHBHHB", 255, marker, 8 + 3 * channels, bits, 8, 8, channels) + parts


STRANGE = {
    "12-bit JPEG": (frame(0xC1, bits=12), "a JPEG with 12 bits: save it as an ordinary JPEG or PNG"),
    "16-bit lossless JPEG": (frame(0xC3, bits=16, channels=1), "a lossless JPEG with 16 bits: save it as"),
    "two channels": (frame(0xC0, channels=2), "a JPEG with 2 channels"),
    "hierarchical": (frame(0xC5) + b"\xff\xda\0\x0c\3\0\0\1\0\2\0\0\x3f\0" + bytes(99), "a hierarchical JPEG"),
    "JPEG-LS": (b"\xff\xd8" + frame(0xF7)[len(JPEG_START) :], "a lossless (JPEG-LS) JPEG"),
    "JPEG, cut off": (JPEG_START[:3], "a damaged JPEG file"),
    "PNG, cut off": (b"\x89PNG\r\n\x1a\n\0\0", "a damaged PNG file (its header is cut off)"),
    "GIF, cut off": (b"GIF89a", "a damaged GIF file (its header is cut off)"),
    "BMP, cut off": (b"BM\0\0", "a damaged BMP file (its header is cut off)"),
    "WebP of another kind": (b"RIFF\x10\0\0\0WEBPVP8Z" + bytes(30), "a damaged WEBP file"),
    "PPM, cut off": (b"P5 37", "a damaged PPM file (Reached EOF while reading header)"),
    "IHDR checksum": (png(GREY, 8, 0).replace(b"IHDR\0\0\0", b"IHDR\0\0\1"), "a damaged PNG file (broken PNG file"),
    "colour PFM": (
        b"PF\n1 1\n-1\n" + bytes(12),
        "not an image of a supported format (JPEG, PNG, WEBP, BMP, TIFF, PPM,",
    ),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(20), "not an image of a supported format (JPEG, PNG, "),
    "a text": (b"BMW makes cars\n" * 5, "not an image of a supported format (JPEG, PNG, "),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_file_that_cannot_be_opened_is_named_for_what_it_is(name: str, tmp_path: Path) -> None:
    content, words = STRANGE[name]
    assert refusal(content, tmp_path / "x.jpg").startswith(words)
    assert ("not an image" in words) == ("not an image" in refusal(content, tmp_path / "x.jpg"))


def test_other_formats_are_called_by_their_name(tmp_path: Path) -> None:
    starts = {b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000", b"\0\0\0\x18ftypheic": "HEIC", b"\0\0\0\x1cftypavif": "AVIF"}
    for start, name in starts.items():
        assert refusal(start + bytes(20), tmp_path / "x.jpg").endswith(f"but {name}: save it as JPEG or PNG")
