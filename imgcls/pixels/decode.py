"""The only image decoder: any supported file becomes upright 8-bit RGB pixels, the same for every command.

What it settles is part of every checkpoint's meaning (`Preprocess.decode`) and must not change: the format is
read from the content, EXIF orientation is applied, 16 bits are scaled to 8, transparency is laid on white,
animations give their first frame, and embedded colour profiles are ignored, as in the recipes that made
torchvision's published weights. Pillow decodes what `forms` lists as right; of sound JPEG files simplejpeg gives the
same pixels sooner (6 times for 32 px, 1.3 times for 0.2 megapixels). Knows nothing of networks.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import warnings
from collections.abc import Callable
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageFile, _imaging

from imgcls.errors import ImageError
from imgcls.pixels import forms
from imgcls.pixels.forms import FORMATS
from imgcls.pixels.metadata import without_metadata

# Extensions that torchvision's ImageFolder lists; the format itself is decided by content.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

MOST_METADATA = 2**24  # bytes of a JPEG file beside its pixels; others are left to Pillow

EIGHT_BITS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB")  # modes of PIL images

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow refuses an image of over 179 million pixels from its header and warns from half of that on. The error is
# kept; the warning would be one line per photograph of a 108-megapixel phone. Its warnings about damaged metadata
# name no file, and damage to the pixels is an error. libtiff prints its errors, and what it thinks of private tags.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())
with contextlib.suppress(OSError, AttributeError):  # a Pillow without libtiff, or one that hides it
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)

Pixels = npt.NDArray[np.uint8]
Result = TypeVar("Result")


def decode(source: str | bytes, name: str | None = None, shorter: int | None = None) -> Pixels:
    """Decode a file (path) or its bytes into an upright RGB picture: uint8 [height, width, 3].

    Args:
        source: path of the file, or the file's content.
        name: how errors call the image; the path when None.
        shorter: the picture may be given at a half, a quarter, … of its size, as long as its shorter side keeps this
            many pixels; JPEG files of that size are decoded several times sooner. None: all pixels.

    Raises:
        ImageError: not one of `FORMATS`, of a form that would come out wrong, damaged, truncated, too large or
            unreadable.
    """
    called = name if name is not None else source if isinstance(source, str) else "image"
    return _read(source, called, lambda image: _decoded(image, shorter))


def in_memory(picture: Image.Image | npt.NDArray[Any], name: str, shorter: int | None = None) -> Pixels:
    """Return what `decode` gives for a file, of a picture that is in memory: uint8 [height, width, 3].

    Args:
        picture: a PIL image, which is brought to upright RGB as a file is (one whose pixels PIL has read already must
            have 8 bits per channel); or an array uint8 [height, width, 3] in RGB or [height, width] in grey.
        name: how errors call it.
        shorter: as `decode`.

    Raises:
        ImageError: an array or image of another kind; or as `decode`, for a file that PIL has opened only.
    """
    if isinstance(picture, np.ndarray):
        grey = picture.ndim == 2
        if picture.dtype != np.uint8 or not (grey or (picture.ndim == 3 and picture.shape[2] == 3)) or not picture.size:
            kind = f"{picture.dtype} {list(picture.shape)}"
            raise ImageError(f"{name}: is {kind}; give uint8 [height, width, 3] in RGB, or [height, width] in grey")
        return reduced(np.repeat(picture[:, :, None], 3, axis=2) if grey else picture, shorter)
    try:
        if isinstance(picture, ImageFile.ImageFile) and picture.tile:  # opened, and its pixels not yet read
            return _used_now(picture, lambda image: _decoded(image, shorter))
        if isinstance(picture, ImageFile.ImageFile) and (problem := forms.problem(picture)):
            raise forms.FormError(problem)
        if picture.mode not in EIGHT_BITS:
            raise OSError(f"a PIL image of mode {picture.mode}; give one of 8 bits, such as mode RGB")
        if "transparency" in picture.info and picture.mode != "P":  # whose bits, and so whose colour, are not known
            raise OSError("a PIL image with one transparent colour, already read; convert it to RGBA")
        return _turned(reduced(np.asarray(_to_rgb(picture)), shorter), picture)
    except Exception as error:  # as in `_read`
        raise ImageError(f"{name}: {_reason(error)}") from error


def reduced(pixels: Pixels, shorter: int | None) -> Pixels:
    """Return a picture at the size that `decode` gives it when its shorter side may be `shorter`."""
    divisor = _divisor(pixels.shape[1], pixels.shape[0], shorter)
    return pixels if divisor == 1 else np.asarray(Image.fromarray(pixels).reduce(divisor))


def reduced_size(width: int, height: int, shorter: int) -> tuple[int, int]:
    """Return the (width, height) that `decode` gives a picture when its shorter side may be `shorter`."""
    divisor = _divisor(width, height, shorter)
    return -(-width // divisor), -(-height // divisor)


def image_size(path: str) -> tuple[int, int]:
    """Return (width, height) in pixels of the upright picture, from the header alone.

    Raises:
        ImageError: as `decode`, for what the header shows.
    """
    return _read(path, path, _upright_size)


def depth(path: str) -> int:
    """Return the bits per channel that a file holds, from its header alone.

    Raises:
        ImageError: as `decode`, for what the header shows.
    """
    return _read(path, path, forms.depth)


def _upright_size(image: ImageFile.ImageFile) -> tuple[int, int]:
    width, height = image.size
    # The size of a TIFF is already that of the upright picture.
    turned = image.format != "TIFF" and 5 <= _orientation(image) <= 8
    return (height, width) if turned else (width, height)


def _read(source: str | bytes, called: str, use: Callable[[ImageFile.ImageFile], Result]) -> Result:
    """Return what `use` makes of the opened file; where its metadata are in the way, of a copy without them."""
    try:
        if isinstance(source, str):
            _check(source)
        try:
            return _used(source, use)
        except (Image.DecompressionBombError, forms.FormError):
            raise
        except Exception:
            bare = without_metadata(source)
            if bare is None:
                raise
        return _used(bare, use)
    except Exception as error:  # Pillow's parsers raise anything from SyntaxError to struct.error on damaged files
        if _is_short_of_files(error):
            raise
        raise ImageError(f"{called}: {_reason(error)}") from error


def _check(path: str) -> None:
    if not os.path.isfile(path):  # a FIFO or device would block or never end
        raise OSError("not a regular file" if os.path.exists(path) else "no such file")
    if os.path.getsize(path) == 0:
        raise OSError("the file is empty")


def _used(source: str | bytes, use: Callable[[ImageFile.ImageFile], Result]) -> Result:
    try:
        opened = Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except (Image.DecompressionBombError, PermissionError):
        raise
    except Exception as error:
        if _is_short_of_files(error):
            raise
        raise OSError(forms.refusal(source, error)) from error
    with opened as image:
        try:
            return _used_now(image, use)
        except forms.FormError:
            raise
        except Exception as error:
            if "truncated" not in str(error) and (form := forms.unusual(image, source)):
                raise forms.FormError(form) from error
            raise


def _used_now(image: ImageFile.ImageFile, use: Callable[[ImageFile.ImageFile], Result]) -> Result:
    if problem := forms.problem(image):
        raise forms.FormError(problem)
    # Else Pillow maps grey TIFF files into memory, turned ones with their sides swapped.
    filename, image.filename = image.filename, ""
    try:
        return use(image)
    finally:
        image.filename = filename


def _decoded(image: ImageFile.ImageFile, shorter: int | None) -> Pixels:
    divisor = _divisor(*image.size, shorter)
    pixels = _sound_jpeg(image, divisor)
    if pixels is None:
        pixels = reduced(np.asarray(_rgb(image)), shorter)
    return _turned(pixels, image)


def _turned(pixels: Pixels, image: Image.Image) -> Pixels:
    """Turn pixels upright, as the metadata of their image say."""
    transpose = _UPRIGHT.get(_orientation(image))
    return pixels if transpose is None else np.asarray(Image.fromarray(pixels).transpose(transpose))


def _divisor(width: int, height: int, shorter: int | None) -> int:
    """Return the largest power of two by which the sides may be divided."""
    return 1 << (max(1, min(width, height) // shorter).bit_length() - 1) if shorter else 1


def _sound_jpeg(image: ImageFile.ImageFile, divisor: int) -> Pixels | None:
    """Decode an undamaged grey or RGB JPEG at 1/divisor of its size; None: let Pillow decide."""
    file = getattr(image, "fp", None)
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L") or file is None:
        return None
    position = file.tell()
    if file.seek(0, os.SEEK_END) > 4 * image.width * image.height + MOST_METADATA:  # it could fill the memory
        file.seek(position)
        return None
    file.seek(0)
    content = file.read()
    file.seek(position)
    scale = min(divisor, 8)  # the decoder's own; the rest is averaged
    width, height = (-(-side // scale) for side in image.size)
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(content, "RGB", min_height=height, min_width=width, min_factor=scale)
    except ValueError:  # of files with the slightest damage, which Pillow may repair or refuse
        return None
    rest = divisor // scale
    return pixels if rest == 1 else np.asarray(Image.fromarray(pixels).reduce(rest))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged metadata does not make the picture unreadable
        return 1


def _rgb(image: ImageFile.ImageFile) -> Image.Image:
    """Load an opened image and return its RGB picture."""
    bits, tags = forms.depth(image), forms.tags_of(image)
    if image.format == "PNG" and "transparency" in image.info and image.mode != "P":
        if bits == 16:
            return _without_one_colour(image)
        if bits > 1:  # the file gives the colour in its own depth, Pillow compares it with levels of 8 bits
            most = (1 << bits) - 1
            image.info["transparency"] = ((np.asarray(image.info["transparency"]) & most) * 255 // most).tolist()
    image.load()  # Pillow turns a TIFF upright while it loads, and drops the tag
    if not image.mode.startswith("I"):
        return _to_rgb(image)
    # 16-bit grey; Pillow's own conversion clips 1000 to 255
    most = 4095 if bits == 12 else 65535
    levels = np.clip(np.asarray(image).astype(np.int64), 0, most)
    if tags.get(forms.PHOTOMETRIC) == forms.WHITE_IS_ZERO:  # which Pillow inverts up to 8 bits only
        levels = most - levels
    return Image.fromarray(((levels * 255 + most // 2) // most).astype(np.uint8)).convert("RGB")


def _without_one_colour(image: ImageFile.ImageFile) -> Image.Image:
    """Load a 16-bit PNG one of whose colours is transparent: those pixels become white."""
    colour, file = image.info.pop("transparency"), image.fp
    assert file is not None
    low = None
    if image.mode == "RGB":  # of which Pillow keeps the high bytes; read the other way round they are the low ones
        from PIL.PngImagePlugin import PngImageFile

        file.seek(0)
        low = PngImageFile(file)
        low.tile = [low.tile[0]._replace(args="RGB;16L")]
        low.load()
    picture = np.array(_rgb(image))
    levels = np.asarray(image)[:, :, None] if low is None else np.asarray(image) * np.uint16(256) + np.asarray(low)
    picture[(levels == colour).all(axis=2)] = 255
    return Image.fromarray(picture)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        levels = np.asarray(image)
        if not (np.isfinite(levels).all() and levels.min() >= 0 and levels.max() <= 1):
            raise OSError("a floating-point image outside 0..1; save it with 8 or 16 bits")
        return Image.fromarray(np.rint(levels * 255).astype(np.uint8)).convert("RGB")
    if image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        # Pillow inverts every CMYK JPEG, which is right only where Adobe's marker says so.
        return Image.fromarray(255 - np.asarray(image), mode="CMYK").convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _is_short_of_files(error: Exception) -> bool:
    """Tell the want of this process, which may open no more files, from a fault of the image."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return "too large: over 178 million pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split()) or type(error).__name__
