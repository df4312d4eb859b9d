"""Encoded images become tensors, through Pillow."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any, Final

import numpy as np
import PIL
from PIL import (
    BmpImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from modelport.core.errors import InputError, LimitError
from modelport.core.steps import ImageStep
from modelport.core.tensors import BYTES, Array, Tensors, TensorSpec
from modelport.processing.base import Facts, Transform

#: Nothing else is ever asked: every further decoder is a further place for a defect. Imported by
#: name, since Pillow would otherwise import all forty of them to find one.
_PLUGINS: Final = (JpegImagePlugin, PngImagePlugin, WebPImagePlugin, BmpImagePlugin)
#: A Pillow that was built without WebP has one fewer.
_FORMATS: Final = tuple(name for name in ("JPEG", "PNG", "WEBP", "BMP") if name in Image.OPEN)

_FILTERS: Final = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

#: EXIF's number of the tag, and what undoes each of its values.
_ORIENTATION: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

#: Where nothing else tells: what nearly all classifiers of photographs were trained on.
_USUAL_SIZE: Final = 224
#: The shorter side before the crop, relative to the crop (256 to 224).
_MARGIN: Final = 8 / 7


class ImageProcessor:
    """See the module."""

    def fit(self, step: ImageStep, facts: Facts) -> ImageStep:
        """See `modelport.processing.base.Processor.fit`."""
        spec = facts.input_for(step.kind, step.to, ranks=(4,))
        layout = step.layout or _layout(spec)
        axes = layout if layout != "flat" else "N?"
        sizes = dict(zip(axes, spec.shape, strict=False)) if spec is not None else {}
        if spec is not None and len(spec.shape) != len(axes):
            raise InputError(
                f"layout {layout} does not fit input {spec.name} {spec.shape_text}",
                hint="declare another layout: NHWC, NCHW, NHW or flat",
            )
        step = replace(
            step,
            to=spec.name if spec is not None else step.to,
            layout=layout,
            colour=step.colour or ("L" if layout == "NHW" or sizes.get("C") == 1 else "RGB"),
            dtype=step.dtype or (spec.dtype if spec is not None else "float32"),
        )
        if layout == "flat":
            step = _fit_flat(step, spec)
        else:
            step = _fit_size(step, sizes.get("H"), sizes.get("W"))
        if spec is not None:
            _check(step, spec)
        return step

    def open(self, step: ImageStep, facts: Facts) -> Transform:
        """See `modelport.processing.base.Processor.open`."""
        return ImageTransform(step, facts.lead)


def _layout(spec: TensorSpec | None) -> str:
    if spec is None:
        return "NCHW"  # only PyTorch modules cannot tell their signature before the export
    rank = len(spec.shape)
    if rank in (2, 3):
        return "flat" if rank == 2 else "NHW"
    if rank == 4:
        last, second = spec.shape[3] in (1, 3), spec.shape[1] in (1, 3)
        if last != second:
            return "NHWC" if last else "NCHW"
    raise InputError(
        f"no telling the layout of input {spec.name} {spec.shape_text}",
        hint="declare it: 'layout' NHWC, NCHW, NHW or flat",
    )


def _fit_flat(step: ImageStep, spec: TensorSpec | None) -> ImageStep:
    """A row of numbers: a square image, unless a size is declared."""
    if step.output_size is not None or spec is None or not isinstance(spec.shape[1], int):
        return _fit_size(step, None, None)
    for colour, channels in (("L", 1), ("RGB", 3)):
        side = int(np.sqrt(spec.shape[1] / channels))
        if side and side * side * channels == spec.shape[1]:
            kept = step.colour if step.colour == "BGR" and channels == 3 else colour
            return _fit_size(replace(step, colour=kept), side, side)
    raise InputError(f"input {spec.name} {spec.shape_text} is no square image; declare 'size'")


def _fit_size(step: ImageStep, height: Any, width: Any) -> ImageStep:
    """Fill in the sizes that the model tells, or that are usual."""
    known = isinstance(height, int) and isinstance(width, int)
    if step.resize == "shorter":
        crop = step.crop or ((height, width) if known else (_USUAL_SIZE, _USUAL_SIZE))
        return replace(step, crop=crop, size=step.size or (round(min(crop) * _MARGIN),))
    if step.output_size is not None:
        return step
    if not known:
        raise InputError("the model does not tell the size of its images", hint="declare 'size'")
    if step.resize == "none":
        return replace(step, crop=(height, width))
    return replace(step, size=(height, width))


def _check(step: ImageStep, spec: TensorSpec) -> None:
    """The tensor that the step makes, against the one that the model takes."""
    if step.dtype != spec.dtype:
        raise InputError(f"the step makes {step.dtype}, input {spec.name} needs {spec.dtype}")
    made = _shape(step, spec.shape[0])
    if any(isinstance(d, int) and d != m for m, d in zip(made[1:], spec.shape[1:], strict=True)):
        raise InputError(
            f"the step makes {list(made)} of an image, input {spec.name} needs {spec.shape_text}"
        )


def _size(step: ImageStep) -> tuple[int, int]:
    if step.output_size is None:
        raise InputError("the size of the image is open", hint="declare 'size'")
    return step.output_size


def _shape(step: ImageStep, lead: int | str) -> tuple[int | str, ...]:
    height, width = _size(step)
    sizes = {"H": height, "W": width, "C": 1 if step.colour == "L" else 3}
    if step.layout == "flat":
        return (lead, sizes["H"] * sizes["W"] * sizes["C"])
    return (lead, *(sizes[axis] for axis in step.layout[1:]))


class ImageTransform:
    """Decodes and computes row by row, so that a row never depends on another.

    Parameters
    ----------
    step : ImageStep
        Fitted.
    lead : int or str
        The batch dimension.
    """

    row_independent = True
    library = f"Pillow {PIL.__version__}"

    def __init__(self, step: ImageStep, lead: int | str) -> None:
        self._step = step
        self._height, self._width = _size(step)
        self._channels = 1 if step.colour == "L" else 3
        self._dtype = np.dtype(step.dtype)
        # Half precision is computed in single: its own arithmetic would add errors.
        self._working = np.dtype(np.float64 if step.dtype == "float64" else np.float32)
        self._mean = np.asarray(step.mean, self._working) if any(step.mean) else None
        self._std = np.asarray(step.std, self._working) if step.std else None
        self.takes = (TensorSpec(step.input, BYTES, (lead,)),)
        shape = _shape(step, lead)
        self.gives = (TensorSpec(step.to, step.dtype, shape),)
        self._row_shape = tuple(size for size in shape[1:] if isinstance(size, int))

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """See `modelport.processing.base.Transform.run`."""
        encoded = tensors[self._step.input]
        size = (len(encoded), self._height, self._width, self._channels)
        pixels = np.empty(size, dtype=self._dtype)
        for row, data in enumerate(encoded):
            pixels[row] = self._scale(self._read(data, f"{self._step.input}[{row}]"))
        if self._step.layout == "NCHW":
            return {self._step.to: np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))}
        return {self._step.to: pixels.reshape(len(encoded), *self._row_shape)}

    def _scale(self, pixels: Array) -> Array:
        """``(pixel / divide - mean) / std``, in this order, as the training libraries do."""
        if self._dtype.kind != "f":
            return pixels
        values = pixels.astype(self._working)
        if self._step.divide != 1.0:
            values /= self._step.divide
        if self._mean is not None:
            values -= self._mean
        if self._std is not None:
            values /= self._std
        return values

    def _read(self, data: Any, where: str) -> Array:
        """One image as uint8 pixels ``[height, width, channels]``."""
        image = decode(data, "L" if self._channels == 1 else "RGB", self._step.most_pixels, where)
        image = self._cropped(self._resized(image, where))
        if image.size != (self._width, self._height):
            raise InputError(
                f"the image has {image.height}×{image.width} pixels, the model takes "
                f"{self._height}×{self._width}, and nothing resizes it",
                where=where,
            )
        pixels = np.asarray(image).reshape(self._height, self._width, self._channels)
        return pixels[:, :, ::-1] if self._step.colour == "BGR" else pixels

    def _resized(self, image: Image.Image, where: str) -> Image.Image:
        step, (width, height) = self._step, image.size
        if step.resize == "none":
            return image
        if step.resize == "exact":
            target = (step.size[1], step.size[0])
        elif step.resize == "shorter":
            # As torchvision: the longer side is cut to a whole number.
            (side,) = step.size
            longer = int(side * max(width, height) / min(width, height))
            target = (side, longer) if width <= height else (longer, side)
            if target[0] * target[1] > step.most_pixels:
                raise LimitError(
                    f"an image of {height}×{width} pixels is too narrow to be resized", where=where
                )
        else:
            share = min(step.size[0] / height, step.size[1] / width)
            target = (max(1, round(width * share)), max(1, round(height * share)))
        if target != image.size:
            image = image.resize(target, _FILTERS[step.filter])
        return self._boxed(image) if step.resize == "letterbox" else image

    def _boxed(self, image: Image.Image) -> Image.Image:
        height, width = self._step.size[0], self._step.size[1]
        fill = self._step.fill if self._channels == 1 else (self._step.fill,) * 3
        box = Image.new(image.mode, (width, height), fill)
        box.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
        return box

    def _cropped(self, image: Image.Image) -> Image.Image:
        if not self._step.crop:
            return image
        # As torchvision rounds; beyond the image's border it is black there and here.
        left = round((image.width - self._width) / 2.0)
        top = round((image.height - self._height) / 2.0)
        return image.crop((left, top, left + self._width, top + self._height))


def decode(data: Any, mode: str, most_pixels: int, where: str) -> Image.Image:
    """The first frame of an encoded image, upright, in Pillow's `mode`.

    Raises
    ------
    InputError
        When it cannot be decoded, naming its row.
    LimitError
        When it has too many pixels; nothing has been decoded then.
    """
    if not isinstance(data, bytes):
        raise InputError(f"not an encoded image, but {type(data).__name__}", where=where)
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS)
        pixels = image.width * image.height
        if 0 < pixels <= most_pixels:
            image.load()
            image = _converted(_upright(image), mode)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise LimitError(f"the image has too many pixels: {error}", where=where) from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"not a JPEG, PNG, WebP or BMP image: {len(data)} bytes that begin {data[:12]!r}",
            where=where,
        ) from error
    except Exception as error:  # decoders raise whatever they like on damaged files
        raise InputError(f"the image is damaged: {error}", where=where) from error
    if not 0 < pixels <= most_pixels:
        raise LimitError(
            f"the image has {image.height}×{image.width} pixels, at most {most_pixels} are allowed",
            where=where,
        )
    return image


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):
        # Grey images of 16 bits lose the lower 8, as coloured ones do inside Pillow, which would
        # make everything above 255 white.
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8))
    # Training pipelines drop transparency; of a palette's Pillow would warn.
    image.info.pop("transparency", None)
    return image.convert(mode)


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # damaged EXIF data does not damage the pixels
        return image
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)
