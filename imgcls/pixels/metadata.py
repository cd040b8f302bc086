"""A file without what its pixels do not need: for sound pictures whose metadata Pillow stumbles over.

Pillow refuses a PNG for a wrong checksum of its gamma or for 1.5 MB of text, a JPEG for a short profile, a TIFF for
a description that is no text. What decides pixels, colours or orientation is kept as it is, damage included. Decodes
nothing.
"""

from __future__ import annotations

import struct
import zlib

from imgcls.pixels.forms import PNG_SIGNATURE, content, format_of

MOST = 2**27  # bytes of a file that are copied at most

PNG_KEPT = (b"tRNS", b"eXIf")  # of the chunks that a decoder may skip: transparency and orientation
# Size, bits, photometric interpretation, orientation and so on: the tags that `forms`, Pillow and libtiff decode by.
TIFF_KEPT = {*range(254, 260), 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, *range(322, 326)}
TIFF_KEPT |= {332, 338, 339, 347, *range(512, 522), *range(529, 533)}


def without_metadata(source: str | bytes) -> bytes | None:
    """Return a PNG, JPEG or TIFF file (path) or its bytes without its metadata.

    None: it has none, is cut off, damaged elsewhere, of another format, or larger than `MOST`.
    """
    with content(source) as file:
        whole = file.read(MOST + 1)
    strip = {"PNG": _png, "JPEG": _jpeg, "TIFF": _tiff}.get(format_of(whole) or "")
    if strip is None or len(whole) > MOST:
        return None
    try:
        bare = strip(whole)
    except (struct.error, IndexError, OverflowError):  # cut off, which stays an error
        return None
    return bare if bare != whole else None


def _png(whole: bytes) -> bytes:
    parts, offset, name = [PNG_SIGNATURE], len(PNG_SIGNATURE), b""
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", whole, offset)
        chunk = whole[offset : offset + length + 12]
        (checksum,) = struct.unpack_from(">I", whole, offset + length + 8)
        needed = not name[0] & 0x20 or name in PNG_KEPT  # a capital letter: no decoder may skip it
        if needed and not (name == b"eXIf" and checksum != zlib.crc32(chunk[4:-4])):
            parts.append(chunk)
        offset += length + 12
    return b"".join(parts)


def _jpeg(whole: bytes) -> bytes:
    parts, offset = [whole[:2]], 2
    while whole[offset + 1] != 0xDA:  # where the pixels begin
        marker, length = struct.unpack_from(">HH", whole, offset)
        segment = whole[offset : offset + length + 2]
        if not 0xFF02 <= marker <= 0xFFFE or length < 2 or len(segment) < length + 2:
            raise IndexError
        # JFIF's and Adobe's segments tell the colours, unless they are too short for it; EXIF the orientation.
        kept = (marker == 0xFFE0 and length >= 16) or (marker == 0xFFEE and length >= 14)
        kept |= marker == 0xFFE1 and segment[4:10] == b"Exif\0\0"
        if kept or not (0xFFE0 <= marker <= 0xFFEF or marker == 0xFFFE):
            parts.append(segment)
        offset += length + 2
    return b"".join([*parts, whole[offset:]])


def _tiff(whole: bytes) -> bytes:
    order, big = ("<" if whole[:1] == b"I" else ">"), b"+" in whole[2:4]
    count, address, size = ("Q", "Q", 20) if big else ("H", "I", 12)
    (offset,) = struct.unpack_from(order + address, whole, 8 if big else 4)
    (entries,) = struct.unpack_from(order + count, whole, offset)
    first = offset + struct.calcsize(order + count)
    end = first + size * entries
    struct.unpack_from(order + address, whole, end)  # all of it is there
    found = [whole[start : start + size] for start in range(first, end, size)]
    kept = [entry for entry in found if struct.unpack_from(order + "H", entry)[0] in TIFF_KEPT]
    directory = struct.pack(order + count, len(kept)) + b"".join(kept) + bytes(struct.calcsize(address))  # no 2nd page
    return whole[:offset] + directory + whole[offset + len(directory) :]
