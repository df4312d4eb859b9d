"""The image step against pixels that Pillow and NumPy compute here, and against hostile files."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from modelport.adapters import find_adapter
from modelport.convert.processed import _usable
from modelport.core.declarations import PRESETS
from modelport.core.errors import InputError, LimitError
from modelport.core.processing import Processing
from modelport.core.signature import Signature
from modelport.core.steps import ImageStep
from modelport.core.tensors import Array, TensorSpec
from modelport.processing.base import Facts, Transform

from .conftest import encode


@pytest.fixture(scope="module")
def photo() -> Array:
    """427×640 pixels."""
    pixels: Array = load_sample_images().images[0]
    return pixels


def opened(shape: tuple[int | str, ...], dtype: str = "float32", **fields: Any) -> Transform:
    """The step, fitted to a model with one input of that shape."""
    signature = Signature((TensorSpec("x", dtype, shape),), (TensorSpec("y", "float32", ("N",)),))
    (step,) = Processing.from_json({"inputs": [{"kind": "image", **fields}]}).inputs
    facts = Facts(signature)
    processor = find_adapter("processor", "image").load()
    return processor.open(processor.fit(step, facts), facts)


def run(transform: Transform, *encoded: bytes) -> Array:
    array = np.empty(len(encoded), dtype=object)
    array[:] = encoded
    return transform.run({transform.takes[0].name: array})["x"]


def preset(name: str, **fields: Any) -> dict[str, Any]:
    return {**PRESETS[name], **fields}


def test_imagenet_as_torchvision_does(photo: Array) -> None:
    """Resize(256), CenterCrop(224), ToTensor(), Normalize(), written out."""
    image = Image.fromarray(photo)
    resized = image.resize((int(256 * 640 / 427), 256), Image.Resampling.BILINEAR)
    left, top = round((resized.width - 224) / 2), round((256 - 224) / 2)
    pixels = np.asarray(resized)[top : top + 224, left : left + 224]
    values = pixels.astype(np.float32) / np.float32(255)
    mean, std = np.float32((0.485, 0.456, 0.406)), np.float32((0.229, 0.224, 0.225))
    expected = ((values - mean) / std).transpose(2, 0, 1)[np.newaxis]
    found = run(opened(("N", 3, 224, 224), **preset("imagenet")), encode(photo))
    np.testing.assert_array_equal(found, expected)
    assert found.flags.c_contiguous
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", lambda p: p),
        ("keras", lambda p: p / np.float32(255)),
        ("tf", lambda p: p / np.float32(127.5) - np.float32(1)),
        ("caffe", lambda p: p[..., ::-1] - np.float32((103.939, 116.779, 123.68))),
    ],
)
def test_presets(photo: Array, name: str, expected: Any) -> None:
    image = Image.fromarray(photo).resize((80, 60), Image.Resampling.BILINEAR)
    found = run(opened(("N", 60, 80, 3), **preset(name)), encode(photo))
    np.testing.assert_array_equal(found[0], expected(np.asarray(image).astype(np.float32)))


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_filters(photo: Array, name: str) -> None:
    filters = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
    expected = np.asarray(Image.fromarray(photo).resize((64, 32), filters[name]))
    found = run(opened(("N", 32, 64, 3), "uint8", filter=name), encode(photo))
    np.testing.assert_array_equal(found[0], expected)


def test_letterbox(photo: Array) -> None:
    transform = opened(("N", 320, 320, 3), "uint8", resize="letterbox", fill=114)
    found = run(transform, encode(photo))[0]
    height = round(427 * 320 / 640)
    inside = np.asarray(Image.fromarray(photo).resize((320, height), Image.Resampling.BILINEAR))
    top = (320 - height) // 2
    np.testing.assert_array_equal(found[top : top + height], inside)
    assert (found[:top] == 114).all()
    assert (found[top + height :] == 114).all()


def test_a_narrow_image_is_cropped_beyond_its_border(photo: Array) -> None:
    transform = opened(("N", 100, 100, 3), "uint8", resize="none", crop=[100, 100])
    small = photo[:60, :100]
    found = run(transform, encode(small))[0]
    np.testing.assert_array_equal(found[20:80], small)
    assert not found[:20].any()


def test_nothing_resizes() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    transform = opened(("N", 4, 4, 3), "uint8", resize="none")
    np.testing.assert_array_equal(run(transform, encode(pixels), encode(pixels))[1], pixels)


def test_the_same_pixels_of_every_lossless_format(photo: Array) -> None:
    transform = opened(("N", 427, 640, 3), "uint8")
    encoded = [encode(photo), encode(photo, "BMP"), encode(photo, "WEBP", lossless=True)]
    for found in run(transform, *encoded):
        np.testing.assert_array_equal(found, photo)


def test_jpeg_is_decoded_as_pillow_does(photo: Array) -> None:
    data = encode(photo, "JPEG", quality=80)
    found = run(opened(("N", 427, 640, 3), "uint8"), data)[0]
    np.testing.assert_array_equal(found, np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(photo: Array, orientation: int) -> None:
    """Each way to store a picture shows the same one."""
    picture = Image.fromarray(photo[:40, :64])
    stored = {
        1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4,
    }[orientation]  # the operation whose inverse the tag asks for  # fmt: skip
    image = picture if stored is None else picture.transpose(Image.Transpose(stored))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    found = run(opened(("N", 40, 64, 3), "uint8"), buffer.getvalue())[0]
    np.testing.assert_array_equal(found, photo[:40, :64])


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
def test_damaged_exif_does_not_matter(photo: Array) -> None:
    data = encode(photo[:8, :8], "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffgarbage")
    assert run(opened(("N", 8, 8, 3), "uint8"), data).shape == (1, 8, 8, 3)


def images_of_all_modes(photo: Array) -> dict[str, tuple[Image.Image, Array]]:
    small = Image.fromarray(photo[:16, :16])
    grey = small.convert("L")
    alpha = small.copy()
    alpha.putalpha(grey)
    palette = small.convert("P", palette=Image.Palette.ADAPTIVE)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 256 + 200)
    return {
        "RGBA": (alpha, np.asarray(small)),
        "L": (grey, np.repeat(np.asarray(grey)[..., np.newaxis], 3, axis=2)),
        "LA": (alpha.convert("LA"), np.asarray(alpha.convert("LA").convert("RGB"))),
        "P": (palette, np.asarray(palette.convert("RGB"))),
        "1": (grey.convert("1"), np.asarray(grey.convert("1").convert("RGB"))),
        "I;16": (deep, np.repeat(np.asarray(grey)[..., np.newaxis], 3, axis=2)),
    }


@pytest.mark.parametrize("mode", ["RGBA", "L", "LA", "P", "1", "I;16"])
def test_modes_become_colours(photo: Array, mode: str) -> None:
    image, expected = images_of_all_modes(photo)[mode]
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    found = run(opened(("N", 16, 16, 3), "uint8"), buffer.getvalue())[0]
    np.testing.assert_array_equal(found, expected)


def test_a_palette_with_transparency(photo: Array) -> None:
    palette = Image.fromarray(photo[:16, :16]).convert("P", palette=Image.Palette.ADAPTIVE)
    buffer = io.BytesIO()
    palette.save(buffer, "PNG", transparency=bytes(range(256)))
    found = run(opened(("N", 16, 16, 3), "uint8"), buffer.getvalue())[0]
    np.testing.assert_array_equal(found, np.asarray(palette.convert("RGB")))


def test_cmyk_jpeg(photo: Array) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photo[:16, :16]).convert("CMYK").save(buffer, "JPEG", quality=95)
    found = run(opened(("N", 16, 16, 3), "uint8"), buffer.getvalue())[0]
    expected = Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")
    np.testing.assert_array_equal(found, np.asarray(expected))


@pytest.mark.parametrize("shape", [("N", 8, 8), ("N", 1, 8, 8), ("N", 8, 8, 1), ("N", 64)])
def test_grey(photo: Array, shape: tuple[int | str, ...]) -> None:
    image = Image.fromarray(photo).convert("L").resize((8, 8), Image.Resampling.BILINEAR)
    found = run(opened(shape), encode(photo))
    np.testing.assert_array_equal(found.reshape(8, 8), np.asarray(image))
    assert found.shape == (1, *shape[1:])


def test_a_colour_image_as_one_row(photo: Array) -> None:
    image = Image.fromarray(photo).resize((8, 8), Image.Resampling.BILINEAR)
    found = run(opened(("N", 192)), encode(photo))
    np.testing.assert_array_equal(found[0], np.asarray(image).ravel())


def test_half_precision_is_computed_in_single(photo: Array) -> None:
    image = Image.fromarray(photo).resize((8, 8), Image.Resampling.BILINEAR)
    values = np.asarray(image).astype(np.float32) / np.float32(255)
    expected = ((values - np.float32(0.5)) / np.float32(0.3)).astype(np.float16)
    found = run(opened(("N", 8, 8, 3), "float16", divide=255, mean=[0.5], std=[0.3]), encode(photo))
    np.testing.assert_array_equal(found[0], expected)


def test_the_first_frame(photo: Array) -> None:
    frames = [Image.fromarray(photo[:16, :16]), Image.fromarray(photo[16:32, :16])]
    for kind in ("WEBP", "PNG"):
        buffer = io.BytesIO()
        options = {"lossless": True} if kind == "WEBP" else {}
        frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], **options)
        found = run(opened(("N", 16, 16, 3), "uint8"), buffer.getvalue())[0]
        np.testing.assert_array_equal(found, photo[:16, :16])


def test_rows_do_not_depend_on_each_other(photo: Array) -> None:
    transform = opened(("N", 3, 24, 24), **preset("imagenet"))
    encoded = [encode(photo[i : i + 99, i : i + 77]) for i in range(0, 50, 10)]
    together = run(transform, *encoded)
    for row, data in enumerate(encoded):
        np.testing.assert_array_equal(run(transform, data)[0], together[row])
    assert run(transform).shape == (0, 3, 24, 24)


def png(width: int, height: int, data: bytes = b"", extra: bytes = b"") -> bytes:
    """A PNG file written by hand, which may announce any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        head = struct.pack(">I", len(content)) + kind + content
        return head + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


GIF = b"GIF89a\x01\0\x01\0\x80\0\0\xff\xff\xff\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;"

HOSTILE = {
    "nothing": (b"", "0 bytes"),
    "text": (b"hello", "not a JPEG, PNG, WebP or BMP image: 5 bytes that begin b'hello'"),
    "svg": (
        b"<svg xmlns='http://www.w3.org/2000/svg'><image/></svg>",
        "54 bytes that begin b.<svg xmlns=",
    ),
    "gif": (GIF, "not a JPEG, PNG, WebP or BMP"),
    "pdf before a jpeg": (b"%PDF-1.4\n\xff\xd8\xff\xe0", "not a JPEG"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a JPEG"),
    "tiff": (b"II*\0\x08\0\0\0\0\0\0\0\0\0", "not a JPEG"),
    "png without pixels": (png(8, 8), "damaged"),
    "png with wrong pixels": (png(8, 8, b"garbage"), "damaged"),
    "png of size nothing": (png(0, 8), "damaged|0"),
    "jpeg header alone": (b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0", "JPEG|damag"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_are_named_by_their_row(photo: Array, name: str) -> None:
    data, message = HOSTILE[name]
    transform = opened(("N", 8, 8, 3), "uint8")
    with pytest.raises(InputError, match=message) as caught:
        run(transform, encode(photo), data)
    assert caught.value.where == "image[1]"
    assert len(caught.value.line) < 200


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (30_000, 2_000), (9_000, 9_000)])
def test_a_bomb_is_refused_before_it_is_decoded(width: int, height: int) -> None:
    bomb = png(width, height, zlib.compress(b"\0" * 10_000))
    with pytest.raises(LimitError, match="pixels") as caught:
        run(opened(("N", 8, 8, 3), "uint8"), bomb)
    assert caught.value.where == "image[0]"


def test_the_limit_can_be_declared(photo: Array) -> None:
    transform = opened(("N", 8, 8, 3), "uint8", most_pixels=427 * 640 - 1)
    with pytest.raises(LimitError, match=r"427×640 pixels, at most 273279 are allowed"):
        run(transform, encode(photo))


def test_a_line_is_not_blown_up() -> None:
    line = encode(np.zeros((1, 20_000), np.uint8))
    transform = opened(("N", 8, 8, 3), "uint8", resize="shorter", size=[4000], crop=[8, 8])
    with pytest.raises(LimitError, match="too narrow"):
        run(transform, line)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_truncated_files(photo: Array, kind: str) -> None:
    data = encode(photo[:64, :64], kind)
    transform = opened(("N", 8, 8, 3), "uint8")
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(InputError) as caught:
            run(transform, data[: int(len(data) * share)])
        assert caught.value.where == "image[0]"


def test_flipped_bits_never_escape(photo: Array) -> None:
    """Either an image or our error, whatever the decoders raise."""
    transform = opened(("N", 8, 8, 3), "uint8")
    random = np.random.default_rng(3)
    for kind in ("JPEG", "PNG", "WEBP", "BMP"):
        data = np.frombuffer(encode(photo[:32, :32], kind), np.uint8)
        for _ in range(100):
            hurt = data.copy()
            places = random.integers(0, min(len(hurt), 200), size=3)
            hurt[places] = random.integers(0, 256, size=3)
            try:
                found = run(transform, hurt.tobytes())
            except InputError as error:
                assert error.where == "image[0]"  # noqa: PT017 - either is right
            else:
                assert found.shape == (1, 8, 8, 3)


def test_a_polyglot_is_only_an_image(photo: Array) -> None:
    """What stands behind an image's end is nobody's business."""
    data = encode(photo[:8, :8]) + b"PK\x03\x04<script>alert(1)</script>"
    np.testing.assert_array_equal(run(opened(("N", 8, 8, 3), "uint8"), data)[0], photo[:8, :8])


@pytest.mark.parametrize(
    ("shape", "fields", "message"),
    [
        (("N", "c", "h", "w"), {}, "no telling the layout"),
        (("N", 3, "h", "w"), {}, "does not tell the size"),
        (("N", 3, 8, 3), {}, "no telling the layout"),
        (("N", 50), {}, "no square image"),
        (("N", 4, 8, 8), {"layout": "NCHW"}, r"makes \['N', 3, 8, 8\]"),
        (("N", 1, 1, 8, 8), {}, "no telling the layout"),
    ],
)
def test_what_the_model_does_not_tell(
    shape: tuple[int | str, ...], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        opened(shape, **fields)


def test_another_size_and_nothing_that_resizes(photo: Array) -> None:
    step = ImageStep(resize="none", size=(), crop=(), layout="NHWC", dtype="uint8", colour="RGB")
    facts = Facts(None)
    with pytest.raises(InputError, match="does not tell the size"):
        find_adapter("processor", "image").load().fit(step, facts)


def test_photographs_of_the_library_are_found(photo: Array, tmp_path: Path) -> None:
    from modelport.data.base import read_rows

    (tmp_path / "china.jpg").write_bytes(encode(photo, "JPEG"))
    rows = read_rows(tmp_path / "china.jpg")
    assert rows.names == ("china.jpg",)
    assert rows.unnamed is not None
    assert rows.unnamed[0] == (tmp_path / "china.jpg").read_bytes()


@pytest.mark.parametrize(("lead", "used"), [("N", 111), (1, 1), (16, 16)])
def test_a_large_sample_is_used_in_part(lead: int | str, used: int) -> None:
    """Parity runs all rows at once, and networks need many times the memory of their inputs."""
    transform = opened((lead, 3, 224, 224), **preset("imagenet"))
    given = {"image": np.full(1000, b"", dtype=object)}
    chosen = _usable(given, [transform], lead)
    assert len(chosen) == used
    assert chosen[0] == 0
    assert len(set(chosen.tolist())) == used
