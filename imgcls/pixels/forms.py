"""Which forms of each image format come out right, and the words for those that do not.

The lists hold what a test decodes to the values that the file was made from (tests/pixels/test_forms.py); Pillow
wraps, clips, inverts or scrambles most of the others without a word. Decodes nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from io import BytesIO
from typing import IO, Any

from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF")
HEAD = 70  # bytes: enough to tell a format, and all masks of a BMP

# TIFF tags
BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, SAMPLES, PLANES, COLOUR_MAP = 258, 259, 262, 266, 277, 284, 320
INKS, EXTRA_SAMPLES, SAMPLE_FORMAT, SUBSAMPLING = 332, 338, 339, 530

# TIFF: photometric interpretation -> its name, channels, and the bits per channel that are decoded right
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
PHOTOMETRICS: dict[int, tuple[str, int, tuple[int, ...]]] = {
    WHITE_IS_ZERO: ("white-is-zero grey", 1, (1, 2, 4, 8, 16)),
    BLACK_IS_ZERO: ("grey", 1, (1, 2, 4, 8, 12, 16)),
    RGB: ("RGB", 3, (8, 16)),
    PALETTE: ("palette", 1, (1, 2, 4, 8)),
    CMYK: ("CMYK", 4, (8, 16)),
    YCBCR: ("YCbCr", 3, (8,)),
    LAB: ("CIELab", 3, (8,)),
}
RAW, FAX, JPEGS = 1, (2, 3, 4), (6, 7)
COMPRESSIONS = (RAW, *FAX, 5, *JPEGS, 8, 32773, 32946, 34925, 50000)
OTHER_COMPRESSIONS = {34712: "JPEG 2000", 34887: "LERC", 50001: "WebP", 50002: "JPEG XL", 34676: "SGI Log"}
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
UNSPECIFIED, PREMULTIPLIED, ALPHA, CORELS_ALPHA = 0, 1, 2, 999

# JPEG: marker of the frame header -> kind; the three common ones are not named
SCANS = {0xC0: "", 0xC1: "", 0xC2: "", 0xC3: "lossless", 0xC9: "arithmetic-coded", 0xCA: "arithmetic-coded"}
SCANS |= {0xCB: "lossless arithmetic-coded", 0xF7: "lossless (JPEG-LS)"}
SCANS |= dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical")

OTHERS = (
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"II\xbc", "JPEG XR"),
    (b"PF", "colour PFM"),
    (b"P7", "PAM"),
)

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class FormError(OSError):
    """A sound file of a form whose pixels would come out wrong."""


def content(source: str | bytes) -> IO[bytes]:
    """Open a file (path) or its bytes."""
    return BytesIO(source) if isinstance(source, bytes) else open(source, "rb")


def problem(image: ImageFile) -> str | None:
    """Return why an image that is opened and not yet loaded is refused, with what to do; None: it comes out right."""
    if image.format == "TIFF" and image.fp is None:  # its pixels are read already
        return _tiff(tags_of(image), tags_of(image).prefix)
    if image.format not in ("TIFF", "BMP", "PPM") or image.fp is None:
        return None
    position = image.fp.tell()
    image.fp.seek(0)
    head = image.fp.read(HEAD)
    cut_off = image.format == "TIFF" and _is_cut_off(image.fp, tags_of(image).offset, head)
    image.fp.seek(position)
    if cut_off:  # without its last tags a signed TIFF would be an unsigned one
        return "image file is truncated (in its list of tags)"
    if image.format == "TIFF":
        return _tiff(tags_of(image), head[:2])
    if image.format == "BMP":
        return _bmp(image, head)
    if head[:2] not in (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf"):
        return "a PPM of a kind that only Pillow writes: save it as PNG"
    return None


def tags_of(image: ImageFile) -> Any:
    """Return the tags of an opened TIFF, as a mapping from numbers; of other files none."""
    return getattr(image, "tag_v2", {})


def _is_cut_off(file: IO[bytes], offset: int, head: bytes) -> bool:
    order, big = ("<" if head[:1] == b"I" else ">"), b"+" in head[2:4]
    file.seek(offset)
    (entries,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
    end = file.tell() + entries * (20 if big else 12)
    return bool(end > file.seek(0, 2))


def depth(image: ImageFile) -> int:
    """Return the bits per channel that a file holds, of an image that is opened and not yet loaded."""
    if image.format == "TIFF":
        return _numbers(tags_of(image).get(BITS, 1))[0]
    if image.format == "PNG" and image.tile:
        packing = str(image.tile[0].args).partition(";")[2]  # of "L;2", "RGB;16B"; "1" is one bit, "L" are eight
        return int(packing.rstrip("B")) if packing else 1 if image.mode == "1" else 8
    if image.format == "PPM" and image.tile:
        arguments = image.tile[0].args
        most = arguments[1] if isinstance(arguments, tuple) and isinstance(arguments[1], int) else 0
        return 32 if image.mode == "F" else 16 if image.mode.startswith("I") or most > 255 else 8
    return 8


def refusal(source: str | bytes, error: Exception) -> str:
    """Return what is to be said of a file (path) or its bytes that Pillow does not open, with `error`."""
    with content(source) as file:
        head = file.read(HEAD)
        kind = format_of(head)
        if kind is None:
            return _other(head)
        if kind == "JPEG" and (words := _jpeg(file)):
            return words
        if isinstance(error, UnidentifiedImageError):  # Pillow keeps the reason to itself
            error = _reason(file, kind) or error
        if kind == "TIFF" and (words := _unopened_tiff(file, head, str(error))):
            return words
    words = " ".join(str(error).split())
    if words.startswith("Unsupported "):  # a sound BMP
        return f"{words.replace('Unsupported', 'unsupported')}: save it as PNG"
    cause = error.__cause__ or error
    if isinstance(cause, KeyError):
        words = f"tag {words} is missing"
    if isinstance(cause, struct.error | IndexError):
        words = "its header is cut off"
    return f"a damaged {kind} file{f' ({words})' if not words.startswith('not ') else ''}"


def _reason(file: IO[bytes], kind: str) -> Exception | None:
    file.seek(0)
    try:
        Image.OPEN[kind][0](file, "")
    except Exception as error:
        return error
    return None


def unusual(image: ImageFile, source: str | bytes) -> str | None:
    """Return the form of an opened image that could not be decoded, when that may be why."""
    if image.format not in ("JPEG", "MPO"):
        return None
    with content(source) as file:
        return _jpeg(file)


def format_of(head: bytes) -> str | None:
    """Return which of `FORMATS` the first bytes of a file belong to."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and (len(head) < 18 or head[15:18] == bytes(3)):  # else a text that begins with BM
        return "BMP"
    if head[:1] == b"P" and head[1:2] in b"123456f" and head[2:3] in b" \t\n\r#":
        return "PPM"
    starts = {b"\xff\xd8": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF"}
    starts |= dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFF")
    return next((kind for start, kind in starts.items() if head.startswith(start)), None)


def _other(head: bytes) -> str:
    name = next((name for start, name in OTHERS if head.startswith(start)), None)
    if head[4:8] == b"ftyp":
        name = "AVIF" if head[8:12] in (b"avif", b"avis") else "HEIC"
    known = f"not an image of a supported format ({', '.join(FORMATS)})"
    return known if name is None else f"{known} but {name}: save it as JPEG or PNG"


def _tiff(tags: Mapping[int, Any], order: bytes) -> str | None:
    """Return why a TIFF is refused; None for the forms that a test proves right."""
    compression, photometric = tags.get(COMPRESSION, RAW), tags.get(PHOTOMETRIC)
    bits, formats = _numbers(tags.get(BITS, 1)), set(_numbers(tags.get(SAMPLE_FORMAT, UNSIGNED)))
    if compression not in COMPRESSIONS:
        name = OTHER_COMPRESSIONS.get(compression, "unknown")
        return f"a TIFF with compression {compression} ({name}): save it with LZW or Deflate"
    if photometric is None and compression not in FAX:
        return "a TIFF that does not say whether 0 is black or white: save it again as TIFF or PNG"
    if (photometric or 0) not in PHOTOMETRICS:
        return f"a TIFF with photometric interpretation {photometric}: save it as RGB"
    name, channels, depths = PHOTOMETRICS[photometric or 0]
    if formats == {SIGNED}:
        return f"a TIFF with signed {bits[0]}-bit values: save it as unsigned{'' if bits[0] < 32 else ' 16-bit'}"
    if formats == {FLOAT}:
        return _float_tiff(tags, photometric, bits, order) or _channels(tags, BLACK_IS_ZERO, 1, 32)
    if formats != {UNSIGNED}:
        return "a TIFF whose values are neither unsigned nor floating-point: save it as PNG"
    if photometric == CMYK and tags.get(INKS, 1) != 1:
        return "a TIFF with other inks than CMYK: save it as RGB"
    if len(set(bits)) > 1 or bits[0] not in depths:
        depth = " and ".join(f"{depth}-bit" for depth in sorted(set(bits)))
        return f"a TIFF with {depth} {name}: save it with 8{' or 16' if 16 in depths else ''} bits"
    if compression in JPEGS and bits[0] != 8:
        return f"a TIFF with {bits[0]}-bit {name} and JPEG compression: save it with Deflate"
    reverse = compression == RAW and tags.get(FILL_ORDER, 1) != 1
    if reverse and ((photometric == WHITE_IS_ZERO and bits[0] == 8) or (photometric == PALETTE and bits[0] < 8)):
        return f"a TIFF with {bits[0]}-bit {name} whose bits are in reverse order: save it as PNG"
    if order == b"MM" and (photometric, bits[0]) in ((WHITE_IS_ZERO, 16), (BLACK_IS_ZERO, 12)):
        return f"a TIFF with {bits[0]}-bit {name} in big-endian byte order: save it as PNG"
    if photometric == PALETTE and 0 < max(_numbers(tags.get(COLOUR_MAP, 0))) < 256:
        return "a TIFF whose palette has 8-bit colours, where 16 bits belong: save it as PNG"
    if photometric == YCBCR and compression == RAW and tags.get(SUBSAMPLING) != (1, 1):
        return "a TIFF with subsampled YCbCr and no compression: save it as RGB"
    return _channels(tags, photometric or 0, channels, bits[0])


def _float_tiff(tags: Mapping[int, Any], photometric: int | None, bits: tuple[int, ...], order: bytes) -> str | None:
    advice = "save it with 8 or 16 bits"
    if photometric != BLACK_IS_ZERO or set(bits) != {32}:
        name = PHOTOMETRICS[photometric or 0][0]
        return f"a TIFF with {bits[0]}-bit floating-point values ({name}): {advice}"
    if order == b"MM" and tags.get(COMPRESSION, RAW) != RAW:  # Pillow swaps the bytes a second time
        return f"a TIFF with compressed floating-point values in big-endian byte order: {advice}"
    return None


def _channels(tags: Mapping[int, Any], photometric: int, channels: int, bits: int) -> str | None:
    """Return why the channels of a TIFF, their number, meaning or order, are refused."""
    name, compression = PHOTOMETRICS[photometric][0], tags.get(COMPRESSION, RAW)
    extras = _numbers(tags.get(EXTRA_SAMPLES, ()))
    samples = tags.get(SAMPLES, channels if compression in JPEGS else 1)
    apart = tags.get(PLANES, 1) == 2 and samples > 1
    unexplained_alpha = (photometric, samples, extras, apart) == (RGB, 4, (), False)  # which many programs write
    if samples != channels + len(extras) and not unexplained_alpha:
        count = f"{samples} channel{'s' if samples > 1 else ''}"
        return f"a TIFF with {count} where {name} has {channels}: save it as RGB"
    alpha = next((extra for extra in extras if extra != UNSPECIFIED), None)
    if alpha not in (None, PREMULTIPLIED, ALPHA, CORELS_ALPHA) or extras.count(UNSPECIFIED) < len(extras) - 1:
        return f"a TIFF whose extra channels are not understood ({name}): save it as PNG"
    if alpha is not None and photometric not in (BLACK_IS_ZERO, RGB, PALETTE):
        return f"a TIFF with {name} and transparency: save it as RGB"
    if not apart:
        return None
    planes = f"a TIFF with {bits}-bit {name} whose channels are stored one after the other"
    # Pillow takes each byte of an uncompressed plane for a pixel, and loses the alpha of compressed grey.
    raw = bits != 8 or tags.get(FILL_ORDER, 1) != 1 or alpha == PREMULTIPLIED or UNSPECIFIED in extras
    if compression == RAW and raw:
        return f"{planes} without compression: save it interleaved"
    if alpha is not None and (photometric != RGB or len(extras) > 1):
        return f"{planes}: save it interleaved"
    if photometric in (PALETTE, LAB) or (photometric == YCBCR and compression not in JPEGS):
        return f"{planes}: save it interleaved"
    return None


def _unopened_tiff(file: IO[bytes], head: bytes, reason: str) -> str | None:
    """Return the form of a TIFF that Pillow does not open; None: it is damaged."""
    if head[:4] == b"MM\0+":
        return "a BigTIFF in big-endian byte order: save it as TIFF or PNG"
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    try:
        tags = ImageFileDirectory_v2(head[: 16 if head[2] == 43 else 8])
        file.seek(tags.next)
        tags.load(file)
        if not {256, 257} <= set(tags):  # width and height
            return None
        if words := _tiff(tags, head[:2]):
            return words
        if not reason.startswith(("unknown pixel mode", "Invalid value for samples")):
            return None
        (bits, *_), samples = _numbers(tags.get(BITS, 1)), tags.get(SAMPLES, 1)
        name, channels, _ = PHOTOMETRICS[tags.get(PHOTOMETRIC, 0)]
    except Exception:  # damage may give anything
        return None
    form = f"{bits}-bit {name}"
    if samples > channels:
        form += f" and {samples - channels} extra channel{'s' if samples > channels + 1 else ''}"
    if tags.get(FILL_ORDER, 1) != 1:
        form += " whose bits are in reverse order"
    return f"a TIFF with {form}: save it as PNG"


def _numbers(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def _bmp(image: ImageFile, head: bytes) -> str | None:
    """Return why a BMP is refused."""
    size = struct.unpack_from("<I", head, 14)[0]
    bits = struct.unpack_from("<H", head, 24 if size == 12 else 28)[0]
    # Pillow drops a palette that is black and white or the levels themselves, and the number of bits with it.
    if image.mode in ("1", "L") and bits != (1 if image.mode == "1" else 8) and image.tile[0].codec_name == "raw":
        return f"a BMP with {bits} bits and a palette of greys only: save it as PNG"
    if bits == 16 and size >= 56 and _masks(head)[3]:
        return "a BMP with 16 bits and transparency: save it as PNG"
    return None


def _masks(head: bytes) -> tuple[int, ...]:
    """Return the masks of red, green, blue and alpha when a BMP's header has them, else zeros."""
    compression = struct.unpack_from("<I", head, 30)[0]
    return struct.unpack_from("<4I", head.ljust(70, b"\0"), 54) if compression == 3 else (0, 0, 0, 0)


def _jpeg(file: IO[bytes]) -> str | None:
    """Return the form of a JPEG file when it is an unusual one."""
    file.seek(2)
    while len(marker := file.read(2)) == 2 and marker[0] == 0xFF:
        if marker[1] == 0xFF:  # padding
            file.seek(-1, 1)
            continue
        length = file.read(2)
        if len(length) < 2 or marker[1] == 0xDA:
            return None
        if marker[1] in SCANS:
            frame = file.read(6)
            kind = SCANS[marker[1]]
            if len(frame) < 6 or (not kind and frame[0] == 8 and frame[5] in (1, 3, 4)):
                return None
            what = [f"{frame[0]} bits"] * (frame[0] != 8) + [f"{frame[5]} channels"] * (frame[5] not in (1, 3, 4))
            described = f"a {kind} JPEG" if kind else "a JPEG"
            return f"{described}{' with ' if what else ''}{' and '.join(what)}: save it as an ordinary JPEG or PNG"
        file.seek(max(0, struct.unpack(">H", length)[0] - 2), 1)
    return None
