"""One image file, decoded by Pillow.

Gray goes by the file's mode, or its palette. Transparency is dropped, of 16 bits the upper 8 are kept, of several
frames the first.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_FILE = 64 << 20
"""Bytes that an image file may have."""

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM")
"""What Pillow may take a file for, whatever its name."""


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """The pixels of a file of the shape (1 or 3, height, width).

    Raises:
        ValueError: where it is none that can be decoded; the message goes on from "cannot be decoded".
        ImportError: without Pillow (the extra `tasks`).
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ImportError("image files need Pillow: pip install 'lnsnum[tasks]'") from error

    try:
        with quiet(), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            return _pixels(image)
    except UnidentifiedImageError as error:
        raise ValueError(" as an image") from error
    except Exception as error:  # whatever Pillow's decoders trip over
        raise ValueError(f": {str(error).splitlines()[0] if str(error) else type(error).__name__}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings of palettes and metadata; an image of very many pixels is an error."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _pixels(image: Any) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise ValueError("its pixels are floats")
    if image.mode.startswith("I"):  # 16 bits, in which Pillow's convert would clip
        return (np.asarray(image).clip(0, 0xFFFF) >> 8).astype(np.uint8)[np.newaxis]
    if image.mode in ("L", "LA", "1"):
        return np.asarray(image.convert("L"))[np.newaxis]
    rgb = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    if image.mode in ("P", "PA") and np.array_equal(rgb[0], rgb[1]) and np.array_equal(rgb[0], rgb[2]):
        return rgb[:1]
    return rgb
