"""From the bytes of an image file to canonical pixels: uint8 [height, width, 3], RGB, upright.

Canonical means: the first frame, EXIF orientation applied, alpha composited on white (as a page
shows it), grey and palette pictures as RGB, 16 bits brought to 8 by scaling, colour profiles
ignored. Whatever the bytes are, the answer is pixels or `BadImage`; nothing is ever printed.

A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, in the frequency domain, when the caller
needs fewer pixels than it has: libjpeg-turbo has vector code for these three factors only.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retain.errors import BadImage
from retain.vision.quiet import hush_libtiff, quiet

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "LARGEST_JPEG",
    "LARGEST_PICTURE",
    "SUFFIXES",
    "decode",
    "encode_array",
    "encode_pillow",
    "encode_vector",
]

LARGEST_PICTURE: Final = 64_000_000
"""Pictures of more pixels than this are refused before anything is allocated for them."""

LARGEST_JPEG: Final = 200_000_000
"""Baseline JPEGs may declare this many, if decoding at reduced size keeps `LARGEST_PICTURE`."""

SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".avif", ".heic", ".heif"}
)
"""File name suffixes taken for pictures when a folder is read (the content decides the format)."""

_MAGIC: Final = (
    ("JPEG", 0, b"\xff\xd8\xff"),
    ("PNG", 0, b"\x89PNG\r\n\x1a\n"),
    ("GIF", 0, b"GIF87a"),
    ("GIF", 0, b"GIF89a"),
    ("WEBP", 8, b"WEBP"),
    ("TIFF", 0, b"II*\0"),
    ("TIFF", 0, b"MM\0*"),
    ("TIFF", 0, b"II+\0"),
    ("TIFF", 0, b"MM\0+"),
    ("JPEG2000", 0, b"\0\0\0\x0cjP  \r\n\x87\n"),
    ("JPEG2000", 0, b"\xff\x4f\xff\x51"),
    ("AVIF", 4, b"ftypavif"),
    ("AVIF", 4, b"ftypavis"),
    ("HEIC", 4, b"ftyphei"),
    ("HEIC", 4, b"ftyphev"),
    ("HEIC", 4, b"ftypmif1"),
    *(("PPM", 0, b"P%d%c" % (i, white)) for i in range(1, 7) for white in b" \t\r\n#"),
    ("BMP", 0, b"BM"),
    ("PDF", 0, b"%PDF"),
)
_UNREADABLE: Final = {
    "HEIC": "it is a HEIC picture, which cannot be read; convert it to JPEG or PNG first",
    "PDF": "it is a PDF document, not a picture; export the page as JPEG or PNG first",
}
_EXIF_ORIENTATION: Final = 0x0112


def decode(data: bytes, *, shorter: int | None = None) -> NDArray[np.uint8]:
    """The canonical pixels of an image file.

    Args:
        data: the whole file.
        shorter: how many pixels the shorter side must keep; a JPEG that has at least 2, 4 or 8
            times as many is decoded at 1/2, 1/4 or 1/8 of its size. None keeps every pixel.

    Returns:
        uint8 [height, width, 3], RGB, C-contiguous.

    Raises:
        BadImage: if the bytes are not a whole picture in a known format, or too large a one.

    >>> decode(b"P6 2 1 255 abcdef").shape
    (1, 2, 3)
    """
    if not data:
        raise BadImage("the file is empty (0 bytes); get a new copy of it")
    kind = _sniff(data)
    if kind in _UNREADABLE:
        raise BadImage(_UNREADABLE[kind])
    try:
        pixels = _decode_jpeg(data, shorter) if kind == "JPEG" else None
        return _decode_any(data, kind, shorter) if pixels is None else pixels
    except BadImage:
        raise
    except MemoryError as error:
        raise BadImage("there is not enough memory to decode it") from error
    except Exception as error:  # damaged files make decoders raise anything
        detail = str(error).partition(" <")[0].strip() or type(error).__name__
        raise BadImage(
            f"the {kind} file is cut short or damaged ({detail[:200]}); get a new copy of it"
        ) from error


def encode_array(pixels: NDArray[np.uint8]) -> bytes:
    r"""An array as the bytes of an image file (binary PPM), the same bytes for the same pixels.

    Args:
        pixels: uint8 [height, width, 3] in RGB, or [height, width] in grey.

    Raises:
        BadImage: if the array is not of that form.

    >>> encode_array(np.zeros((1, 2), np.uint8))
    b'P6\n2 1\n255\n\x00\x00\x00\x00\x00\x00'
    """
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise BadImage(
            f"an array of {pixels.dtype} {list(pixels.shape)} is not a picture; "
            "give uint8 [height, width, 3] in RGB or uint8 [height, width] in grey"
        )
    return b"P6\n%d %d\n255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes()


def encode_vector(vector: NDArray[Any]) -> bytes:
    """A feature vector as the bytes of an `.npy` file, float32 [d], the same for the same numbers.

    Raises:
        BadImage: if it is not a list of finite numbers.

    >>> len(encode_vector(np.array([1.0, 2.0])))
    136
    """
    try:
        with np.errstate(over="ignore"):
            numbers = np.ascontiguousarray(vector, dtype="<f4")
    except (TypeError, ValueError) as error:
        raise BadImage(f"a vector must be a list of numbers: {error}") from error
    if vector.ndim != 1 or not vector.size or not np.isfinite(numbers).all():
        raise BadImage(
            f"an array of {vector.dtype} {list(vector.shape)} is not one feature vector; "
            "give finite numbers [d]"
        )
    # Zero has two signs with one meaning, and one picture must have one name.
    stream = BytesIO()
    np.lib.format.write_array(stream, numbers + np.float32(0), version=(1, 0))
    return stream.getvalue()


def encode_pillow(picture: Image.Image) -> bytes:
    """A Pillow image as the bytes of an image file with its canonical pixels.

    Raises:
        BadImage: if it cannot be brought to canonical pixels.
    """
    try:
        with quiet:
            picture.load()
            pixels = _upright(_rgb(picture), _orientation(picture))
    except BadImage:
        raise
    except Exception as error:  # damaged files make decoders raise anything
        raise BadImage(f"the Pillow image cannot be read ({error})") from error
    return encode_array(pixels)


# -- formats -----------------------------------------------------------------------------------


def _sniff(data: bytes) -> str:
    for kind, start, magic in _MAGIC:
        if data.startswith(magic, start):
            return kind
    raise BadImage(
        f"it is not a picture in a known format (it begins with {data[:8]!r}); "
        "known are JPEG, PNG, WebP, GIF, BMP, TIFF, JPEG 2000, AVIF and PPM"
    )


def _check_size(width: int, height: int, limit: int = LARGEST_PICTURE) -> None:
    if width * height > limit:
        raise BadImage(
            f"it has {width:,}×{height:,} pixels, more than the limit of {limit:,}; "
            "make it smaller first"
        )


def _reduction(width: int, height: int, shorter: int | None) -> int:
    """The largest of 1, 2, 4, 8 by which both sides can be divided and keep `shorter` pixels."""
    if shorter is None:
        return 1
    return next(k for k in (8, 4, 2, 1) if k == 1 or min(width, height) >= k * shorter)


class _Header(NamedTuple):
    """What the segments of a JPEG say before its first scan."""

    orientation: int
    progressive: bool


def _jpeg_header(data: bytes) -> _Header:
    orientation, progressive, at = 1, False, 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == 0xDA:
            break
        if 0xD0 <= marker <= 0xD8 or marker == 0x01:  # markers without a length
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xE1 and data.startswith(b"Exif\0\0", at + 4):
            orientation = _tiff_orientation(data[at + 10 : at + 2 + length])
        progressive |= marker in (0xC2, 0xC6, 0xCA, 0xCE)
        at += 2 + length
    return _Header(orientation, progressive)


def _tiff_orientation(exif: bytes) -> int:
    """The orientation (1 to 8) in the first directory of an EXIF block; 1 if there is none."""
    order = {b"II": "little", b"MM": "big"}.get(exif[:2])
    if order is None or len(exif) < 10:
        return 1

    def number(start: int, size: int) -> int:
        return int.from_bytes(exif[start : start + size], order)  # type: ignore[arg-type]

    first = number(4, 4)
    for entry in range(number(first, 2)):
        at = first + 2 + 12 * entry
        if at + 12 > len(exif):
            break
        if number(at, 2) == _EXIF_ORIENTATION:
            value = number(at + 8, 2 if number(at + 2, 2) == 3 else 4)
            return value if 1 <= value <= 8 else 1
    return 1


def _decode_jpeg(data: bytes, shorter: int | None) -> NDArray[np.uint8] | None:
    """Ordinary JPEGs; None for those that Pillow must look at (CMYK, odd or damaged ones)."""
    import simplejpeg

    try:
        height, width, colour, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if colour not in ("YCbCr", "Gray", "GRAY", "RGB"):
        return None
    header = _jpeg_header(data)
    _check_size(width, height, LARGEST_PICTURE if header.progressive else LARGEST_JPEG)
    factor = _reduction(width, height, shorter)
    reduced = -(-width // factor), -(-height // factor)
    _check_size(*reduced)
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data, "RGB", min_width=reduced[0], min_height=reduced[1]
        )
    except ValueError:
        return None
    return _upright(pixels, header.orientation)


def _decode_any(data: bytes, kind: str, shorter: int | None) -> NDArray[np.uint8]:
    from PIL import Image

    if kind not in Image.OPEN:
        Image.init()
    if kind not in Image.OPEN:
        raise BadImage(f"this Pillow cannot read {kind}; convert it to JPEG or PNG first")
    if kind == "TIFF":
        hush_libtiff()
    with quiet, BytesIO(data) as file:
        try:
            picture = Image.open(file, formats=[kind, "MPO"] if kind == "JPEG" else [kind])
        except Image.DecompressionBombError:
            raise BadImage(
                f"it has more pixels than the limit of {LARGEST_PICTURE:,}; make it smaller first"
            ) from None
        if kind == "JPEG":
            factor = _reduction(*picture.size, shorter)
            header = _jpeg_header(data)
            _check_size(*picture.size, LARGEST_PICTURE if header.progressive else LARGEST_JPEG)
            # Floor, because Pillow keeps at least the size asked for.
            picture.draft(None, (picture.width // factor, picture.height // factor))
        _check_size(*picture.size)
        clear = picture.info.get("transparency")
        if kind == "PNG" and picture.tile and picture.tile[0][3] == "RGB;16B" and clear:
            # Pillow leaves of each channel the upper byte, and of the colour that is clear both.
            picture.info["transparency"] = tuple(value >> 8 for value in clear)
        picture.load()
        orientation = header.orientation if kind == "JPEG" else _orientation(picture)
        return _upright(_rgb(picture), orientation)


# -- pixels ------------------------------------------------------------------------------------


def _orientation(picture: Image.Image) -> int:
    """Read after `load`, as Pillow turns some formats itself and then drops the tag."""
    try:
        value = picture.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - a damaged EXIF block does not make the picture unreadable
        return 1
    return value if value in range(1, 9) else 1


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn and mirror as the EXIF orientation (1 to 8) says (EXIF 2.32, table 4)."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _rgb(picture: Image.Image) -> NDArray[np.uint8]:
    from PIL import Image

    if picture.mode == "F" or picture.mode.startswith("I"):
        values = np.asarray(picture)
        grey = _eight_bits(values, picture.mode)
        if isinstance(clear := picture.info.get("transparency"), int):
            grey = np.where(values == clear, np.uint8(255), grey)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    try:
        return np.asarray(picture.convert("RGB"))
    except ValueError as error:
        raise BadImage(
            f"its colours ({picture.mode}) cannot be read ({error}); save it as RGB first"
        ) from error


def _eight_bits(values: NDArray[Any], mode: str) -> NDArray[np.uint8]:
    """Grey of more than 8 bits, scaled: 65535, or 1.0, is white.

    Integers beyond 16 bits and reals beyond 0 to 1 have no agreed white: their own smallest and
    largest value become black and white.
    """
    grey = values.astype(np.float64)
    if not np.isfinite(grey).all():
        raise BadImage("it holds values that are not finite numbers; save it with 8 or 16 bits")
    low, high = 0.0, 1.0 if mode == "F" else 65535.0
    if grey.min() < low or grey.max() > high:
        low, high = float(grey.min()), float(grey.max())
    return np.rint((grey - low) * (255.0 / max(high - low, 1e-300))).clip(0, 255).astype(np.uint8)
