"""TIFF and PNG files made by the book from arrays, in every form there is."""

from __future__ import annotations

import struct
import zlib
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[Any]  # [height, width, channels]

HEIGHT, WIDTH = 21, 37
ROW, COLUMN = np.mgrid[:HEIGHT, :WIDTH]
RAW, DEFLATE = 1, 8
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
UNSPECIFIED, PREMULTIPLIED, ALPHA = 0, 1, 2
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
COLOURS = np.random.default_rng(0).integers(0, 256, (256, 3))


def samples(channels: int, bits: int) -> Samples:
    """Values over the whole range of `bits`, different in every channel and direction."""
    waves = [np.sin(COLUMN / 9 + ROW / 13 + 1.7 * channel) for channel in range(channels)]
    levels = (np.stack(waves, axis=2) + 1) / 2 * (2**bits - 1)
    whole: Samples = np.rint(levels).astype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)
    return whole


def packed(values: Samples, bits: int, order: str) -> bytes:
    """Rows of values one behind the other, each row filled up to whole bytes."""
    if values.dtype.itemsize * 8 == bits:
        return values.astype(values.dtype.newbyteorder(">" if order == ">" else "<")).tobytes()
    ones = (values.reshape(len(values), -1, 1) >> np.arange(bits)[::-1]) & 1
    return np.packbits(ones.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def tiff(
    values: Samples,
    photometric: int | None = BLACK_IS_ZERO,
    *,
    bits: int | None = None,
    extras: tuple[int, ...] = (),
    kind: int = UNSIGNED,
    order: str = "<",
    compression: int = RAW,
    apart: bool = False,
    tiled: bool = False,
    rows: int = HEIGHT,
    strip: bytes | None = None,
    **tags: tuple[int, ...],
) -> bytes:
    """Write a TIFF by the book: of `values`, or of a strip that holds them already.

    `tags` are further ones, named t262 and so on. The pixels begin at byte 8.
    """
    bits = bits or values.dtype.itemsize * 8
    channels = values.shape[2]
    blocks = []
    for plane in np.split(values, channels, axis=2) if apart else [values]:
        if tiled:
            padded = np.pad(plane, [(0, -HEIGHT % 16), (0, -WIDTH % 16), (0, 0)])
            places = product(range(0, HEIGHT, 16), range(0, WIDTH, 16))
            blocks += [padded[top : top + 16, left : left + 16] for top, left in places]
        else:
            blocks += [plane[top : top + rows] for top in range(0, HEIGHT, rows)]
    contents = [packed(block, bits, order) for block in blocks]
    if compression == DEFLATE:
        contents = [zlib.compress(content) for content in contents]
    contents = contents if strip is None else [strip]
    lengths = [len(content) for content in contents]
    offsets = [8 + sum(lengths[:number]) for number in range(len(lengths))]
    entries: dict[int, tuple[int, ...]] = {256: (WIDTH,), 257: (HEIGHT,), 258: (bits,) * channels, 259: (compression,)}
    entries |= {277: (channels,), 284: (2 if apart else 1,), 339: (kind,) * channels}
    entries |= {} if photometric is None else {262: (photometric,)}
    entries |= {338: extras} if extras else {}
    entries |= {322: (16,), 323: (16,), 324: tuple(offsets), 325: tuple(lengths)} if tiled else {}
    entries |= {} if tiled else {273: tuple(offsets), 278: (rows,), 279: tuple(lengths)}
    entries |= {int(name[1:]): value for name, value in tags.items()}
    body, directory = b"".join(contents), b""
    body += bytes(len(body) % 2)
    for tag, numbers in sorted(entries.items()):
        content = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            content, body = struct.pack(f"{order}I", 8 + len(body)), body + content
        directory += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + content
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(body))
    return head + body + struct.pack(f"{order}H", len(entries)) + directory + bytes(4)


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return one part of a PNG with its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(values: Samples, bits: int, colour: int, extra: bytes = b"", interlaced: bool = False) -> bytes:
    """Write a PNG by the book; `extra` stands before the pixels."""
    steps = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    passes = [values[y::down, x::across] for y, x, down, across in steps] if interlaced else [values]
    rows = b"".join(b"\0" + packed(row[None], bits, ">") for part in passes for row in part)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, colour, 0, 0, interlaced)
    whole = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + whole


GREY, WIDE, COLOUR, WIDE_COLOUR = samples(1, 8), samples(1, 16), samples(3, 8), samples(3, 16)
