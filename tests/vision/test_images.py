"""`decode`: whatever the bytes are, canonical pixels or a clear `BadImage`."""

import contextlib
import os
import struct
import subprocess
import sys
import threading
import tracemalloc
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from retain.errors import BadImage
from retain.vision import decode, encode_array, encode_pillow, encode_vector
from retain.vision.images import LARGEST_PICTURE
from retain.vision.quiet import hush_libtiff

from .conftest import encoded, scene

LOSSLESS = {
    "PNG": {},
    "BMP": {},
    "PPM": {},
    "TIFF": {},
    "WEBP": {"lossless": True},
    "JPEG2000": {"irreversible": False},
}
ORIENTATIONS = range(1, 9)


def with_orientation(data_kind: str, orientation: int, pixels: np.ndarray, **options) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(pixels, data_kind, exif=exif, **options)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_formats_give_exactly_their_pixels(kind):
    pixels = scene()
    np.testing.assert_array_equal(decode(encoded(pixels, kind, **LOSSLESS[kind])), pixels)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "AVIF"])
def test_lossy_formats_give_nearly_their_pixels(kind):
    pixels = scene()
    if kind == "AVIF":
        Image.init()
        if "AVIF" not in Image.SAVE:
            pytest.skip("this Pillow does not write AVIF")
    given = decode(encoded(pixels, kind))
    assert given.shape == pixels.shape
    assert np.abs(given.astype(int) - pixels).mean() < 8


def test_pixels_can_be_written_on_and_are_contiguous():
    for data in (encoded(scene(), "JPEG"), encoded(scene(), "PNG")):
        pixels = decode(data)
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_like_turning_the_picture(kind, orientation):
    data = with_orientation(kind, orientation, scene())
    with Image.open(BytesIO(data)) as picture:
        wanted = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    given = decode(data)
    assert given.shape == wanted.shape
    np.testing.assert_allclose(given.astype(int), wanted, atol=4 if kind == "JPEG" else 0)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_fast_and_careful_jpeg_path_turn_alike(orientation):
    data = with_orientation("JPEG", orientation, scene(), quality=95)
    # Bytes after a marker's segment that do not belong there send the file to Pillow.
    at = data.index(b"\xff\xdb")
    odd = data[:at] + b"\x00\x00\x00" + data[at:]
    np.testing.assert_allclose(decode(odd).astype(int), decode(data), atol=3)


def test_orientation_in_either_byte_order_and_nonsense_orientation():
    pixels = scene()
    upright = decode(encoded(pixels, "JPEG"))
    for order, mark in (("<", b"II"), (">", b"MM")):
        for value, wanted in ((3, upright[::-1, ::-1]), (0, upright), (99, upright)):
            block = mark + struct.pack(order + "HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, value, 0, 0)
            given = decode(encoded(pixels, "JPEG", exif=b"Exif\0\0" + block))
            np.testing.assert_array_equal(given, wanted)
    for broken in (b"", b"II", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"):
        given = decode(encoded(pixels, "JPEG", exif=b"Exif\0\0" + broken))
        np.testing.assert_array_equal(given, upright)


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_a_jpeg_is_decoded_at_the_largest_reduction_that_keeps_enough(factor):
    data = encoded(scene(32 * factor + 7, 24 * factor + 5), "JPEG", quality=95)
    given = decode(data, shorter=24)
    assert given.shape == (-(-(24 * factor + 5) // factor), -(-(32 * factor + 7) // factor), 3)
    full = Image.fromarray(decode(data)).reduce(factor)
    assert np.abs(np.asarray(full).astype(int) - given).mean() < 4


def test_reductions_by_other_factors_are_not_used():
    assert decode(encoded(scene(300, 300), "JPEG"), shorter=100).shape[0] == 150
    assert decode(encoded(scene(199, 199), "JPEG"), shorter=100).shape[0] == 199


def test_the_careful_path_reduces_alike():
    data = encoded(Image.fromarray(scene(401, 301)).convert("CMYK"), "JPEG")
    assert decode(data, shorter=75).shape == (76, 101, 3)


def test_every_mode_of_png():
    pixels = scene()
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    np.testing.assert_array_equal(decode(encoded(grey, "PNG")), np.stack([grey] * 3, -1))
    palette = Image.fromarray(pixels).quantize(64)
    wanted = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(decode(encoded(palette, "PNG")), wanted)
    bits = Image.fromarray(grey).convert("1")
    assert set(np.unique(decode(encoded(bits, "PNG")))) == {0, 255}


def test_sixteen_bits_are_scaled_and_not_clipped():
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    wanted = np.arange(256).reshape(16, 16)
    for kind in ("PNG", "TIFF"):
        given = decode(encoded(Image.fromarray(ramp), kind))
        np.testing.assert_allclose(given[:, :, 0], wanted, atol=1)
        assert (given == given[:, :, :1]).all()
    ppm = b"P5 2 1 65535\n" + b"\x00\x00\xff\xff"
    assert decode(ppm).ravel().tolist() == [0, 0, 0, 255, 255, 255]


def test_reals_are_scaled():
    unit = np.array([[0.0, 0.5, 1.0]], np.float32)
    assert decode(encoded(Image.fromarray(unit), "TIFF"))[0, :, 0].tolist() == [0, 128, 255]
    wide = np.array([[-1.0, 1.0, 3.0]], np.float32)
    assert decode(encoded(Image.fromarray(wide), "TIFF"))[0, :, 0].tolist() == [0, 128, 255]
    with pytest.raises(BadImage, match="finite"):
        decode(encoded(Image.fromarray(np.array([[np.nan]], np.float32)), "TIFF"))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_composited_on_white(kind):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :4, 3] = 255
    options = {"lossless": True} if kind == "WEBP" else {}
    given = decode(encoded(pixels, kind, **options))
    assert given[:, :4].max() == 0
    assert given[:, 4:].min() == 255


def sixteen_bits(values, clear):
    """A PNG of uint16 [h, w] or [h, w, 3], in which one value or colour is transparent."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    colour = 0 if values.ndim == 2 else 2
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    told = np.array(clear, ">u2").tobytes()
    chunks = ((b"IHDR", head), (b"tRNS", told), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    found = b"\x89PNG\r\n\x1a\n"
    for name, content in chunks:
        found += struct.pack(">I", len(content)) + name + content
        found += struct.pack(">I", zlib.crc32(name + content))
    return found


def test_transparency_of_one_colour_of_sixteen_bits_is_white():
    grey = np.array([[0, 1000], [65535, 1000], [25700, 1001]], np.uint16)
    wanted = [[0, 255], [255, 255], [100, 4]]
    assert decode(sixteen_bits(grey, 1000))[:, :, 0].tolist() == wanted
    assert decode(sixteen_bits(grey, 7))[:, :, 0].tolist() == [[0, 4], [255, 4], [100, 4]]
    rgb = np.zeros((1, 2, 3), np.uint16)
    rgb[0, 0] = 1000, 2000, 30000
    assert decode(sixteen_bits(rgb, [1000, 2000, 30000])).tolist() == [[[255] * 3, [0] * 3]]
    assert decode(sixteen_bits(rgb, [0, 0, 0]))[0, 1].tolist() == [255] * 3


def test_transparency_of_palettes_and_of_one_colour_is_white():
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((0, 0), 0)
    for data in (
        encoded(palette, "GIF", transparency=0),
        encoded(palette, "PNG", transparency=0),
        encoded(palette.convert("RGB"), "PNG", transparency=(255, 0, 0)),
    ):
        given = decode(data)
        assert given[0, 0].tolist() == [255, 255, 255]
        assert given[1, 1].tolist() == [0, 0, 255]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_are_their_first_frame(kind):
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (decode(data) == (255, 0, 0)).all()


def test_cmyk_and_grey_jpeg():
    colour = Image.new("RGB", (20, 10), (200, 30, 60))
    given = decode(encoded(colour.convert("CMYK"), "JPEG", quality=95))
    assert np.abs(given.astype(int) - (200, 30, 60)).max() < 8
    assert (decode(encoded(colour.convert("L"), "JPEG")) == 84).mean() > 0.9
    progressive = decode(encoded(scene(), "JPEG", progressive=True, quality=90))
    plain = decode(encoded(scene(), "JPEG", quality=90))
    np.testing.assert_allclose(progressive.astype(int), plain, atol=2)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
def test_one_pixel(kind):
    assert decode(encoded(np.zeros((1, 1, 3), np.uint8), kind), shorter=224).shape == (1, 1, 3)


def test_the_content_decides_and_not_the_name():
    assert decode(encoded(scene(), "PNG")).shape == (64, 96, 3)


def png_header(width: int, height: int) -> bytes:
    """A whole PNG of a declared size, whose pixels are missing."""

    def chunk(name: bytes, body: bytes) -> bytes:
        check = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def jpeg_of_declared_size(width: int, height: int, **options) -> bytes:
    data = bytearray(encoded(scene(16, 16), "JPEG", **options))
    at = data.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        png_header(30_000, 30_000),
        png_header(9_000, 9_000),
        jpeg_of_declared_size(30_000, 30_000),
        jpeg_of_declared_size(12_000, 12_000, progressive=True),
        b"P6 30000 30000 255\n" + bytes(100),
        encoded(scene(), "BMP")[:18] + struct.pack("<ii", 30_000, 30_000) + bytes(100),
        encoded(scene(), "GIF")[:6] + struct.pack("<HH", 65_000, 65_000) + bytes(100),
    ],
)
def test_bombs_are_refused_before_anything_is_allocated(data):
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(BadImage):
                decode(data, shorter=224)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_the_limit_is_named():
    with pytest.raises(BadImage, match=f"{LARGEST_PICTURE:,}"):
        decode(png_header(30_000, 30_000))
    with pytest.raises(BadImage, match="30,000×30,000"):
        decode(jpeg_of_declared_size(30_000, 30_000), shorter=224)


def test_a_large_jpeg_is_read_when_it_can_be_reduced():
    grey = Image.new("L", (12_000, 8_000), 128)
    data = encoded(grey, "JPEG", quality=50)
    assert decode(data, shorter=224).shape == (1000, 1500, 3)
    with pytest.raises(BadImage, match="12,000×8,000"):
        decode(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.9])
def test_cut_files_are_refused(kind, part):
    data = encoded(scene(200, 160), kind)
    with pytest.raises(BadImage, match=r"damaged|cut short|not a picture"):
        decode(data[: int(len(data) * part)])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (bytes(1000), "known format"),
        (b"hello, world", "b'hello, w'"),
        (b"<html>404</html>", "known format"),
        (b"<svg></svg>", "known format"),
        (b"%PDF-1.4\n", "PDF"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
        (b"\xff\xd8\xff", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_reason(data, why):
    with pytest.raises(BadImage, match=why):
        decode(data)


PILLOW_CARRIES_LIBTIFF = (Path(PIL.__file__).parents[1] / "pillow.libs").exists()
SEEDS = {
    kind: encoded(scene(40, 30), kind, **LOSSLESS.get(kind, {}))
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM")
}
SEEDS["EXIF"] = with_orientation("JPEG", 6, scene(40, 30))
SEEDS["CMYK"] = encoded(Image.fromarray(scene(40, 30)).convert("CMYK"), "JPEG")
SEEDS["LZW"] = encoded(scene(40, 30), "TIFF", compression="tiff_lzw")
SEEDS["PALETTE"] = encoded(Image.fromarray(scene(40, 30)).quantize(9), "PNG", transparency=0)


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(sorted(SEEDS)),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
    cut=st.floats(0, 1),
    whole=st.booleans(),
)
def test_damaged_files_raise_bad_image_or_nothing(kind, flips, cut, whole):
    data = bytearray(SEEDS[kind])
    for where, value in flips:
        data[int(where * (len(data) - 1))] = value
    if not whole:
        data = data[: int(cut * len(data))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with contextlib.suppress(BadImage):
            pixels = decode(bytes(data), shorter=8)
            assert pixels.ndim == 3
            assert pixels.dtype == np.uint8


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_raise_bad_image_or_nothing(data):
    for start in (b"", b"\xff\xd8\xff\xe1", b"II*\0", b"GIF89a", b"P5 ", b"BM"):
        with contextlib.suppress(BadImage):
            decode(start + data)


def test_nothing_is_printed_for_damaged_files(tmp_path):
    """Decoders written in C print where Python cannot see it."""
    for name, data in SEEDS.items():
        (tmp_path / name).write_bytes(data[: len(data) * 2 // 3])
        (tmp_path / f"{name}-flip").write_bytes(data[:60] + b"\xff\x00\x7f" * 5 + data[75:])
    tiff = bytearray(SEEDS["TIFF"])
    tiff[tiff.index(struct.pack("<HHI", 277, 3, 1)) + 8] = 99  # samples per pixel
    (tmp_path / "samples").write_bytes(tiff)
    program = (
        "import sys, pathlib; from retain.vision import decode; from retain.errors import *\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try: decode(path.read_bytes())\n"
        "    except BadImage: pass\n"
    )
    assert hush_libtiff() or not PILLOW_CARRIES_LIBTIFF
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "" or not PILLOW_CARRIES_LIBTIFF


def test_the_callers_warning_filters_are_left_as_they_were():
    before = list(warnings.filters)
    threads = [
        threading.Thread(target=lambda: [decode(SEEDS["PNG"]) for _ in range(20)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def test_arrays_come_back_as_they_were_and_always_as_the_same_bytes():
    pixels = scene()
    assert encode_array(pixels) == encode_array(np.asfortranarray(pixels))
    np.testing.assert_array_equal(decode(encode_array(pixels)), pixels)
    grey = pixels[:, :, 0]
    np.testing.assert_array_equal(decode(encode_array(grey)), np.stack([grey] * 3, -1))
    for wrong in (pixels.astype(float), pixels[:, :, :2], pixels[:0], pixels[None]):
        with pytest.raises(BadImage, match="uint8"):
            encode_array(wrong)


def test_vectors_have_one_encoding():
    assert encode_vector(np.array([0.0, 1.0])) == encode_vector(np.array([-0.0, 1.0], np.float32))
    for wrong in (np.array([np.nan]), np.zeros((2, 2)), np.array([]), np.array(["a"])):
        with pytest.raises(BadImage, match="vector"):
            encode_vector(wrong)
    with pytest.raises(BadImage, match="finite"):
        encode_vector(np.array([1e300]))


def test_pillow_images_are_brought_to_canonical_pixels():
    data = with_orientation("PNG", 6, scene())
    with Image.open(BytesIO(data)) as picture:
        np.testing.assert_array_equal(decode(encode_pillow(picture)), decode(data))
    with Image.open(BytesIO(data[:200])) as broken, pytest.raises(BadImage):
        encode_pillow(broken)
