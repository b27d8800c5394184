"""Job pack: thumbnails, crops and facts of photographs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Annotated

from msgspec import Meta
from PIL import Image, ImageOps, ImageStat

from examples.outputs import write_whole
from examples.shelf import Shelf, find
from taskplatform import Fail, Retry, task

Pixels = Annotated[int, Meta(ge=1, le=4096)]
Name = Annotated[str, Meta(min_length=1, max_length=1000)]
Size = tuple[int, int]
Box = tuple[int, int, int, int]

JPEG_QUALITY = 85
PATIENT = Retry(max_attempts=4, backoff_seconds=0.5, max_backoff_seconds=30.0)


@task(name="photos.thumbnail", retry=PATIENT, soft_limit_seconds=20.0, hard_limit_seconds=30.0)
def thumbnail(photo: Name, output: Name, width: Pixels = 320) -> dict[str, object]:
    """Write a JPEG of at most `width` pixels across into the folder `output`; a small photograph is not blown up."""
    image = _developed(_read(photo), photo)
    small = image.resize(fitted(image.size, width), Image.Resampling.LANCZOS)
    return _written(small, output, f"{Path(photo).stem}-{width}w.jpg")


@task(name="photos.crop", retry=PATIENT, soft_limit_seconds=20.0, hard_limit_seconds=30.0)
def crop(photo: Name, output: Name, width: Pixels = 160, height: Pixels = 160) -> dict[str, object]:
    """Write a JPEG of exactly `width` by `height` pixels, filled with the middle of the photograph."""
    image = _developed(_read(photo), photo)
    middle = centre_box(image.size, (width, height))
    cut = image.resize((width, height), Image.Resampling.LANCZOS, box=middle)
    return _written(cut, output, f"{Path(photo).stem}-{width}x{height}.jpg")


@task(name="photos.metadata", retry=PATIENT, soft_limit_seconds=20.0, hard_limit_seconds=30.0)
def metadata(photo: Name) -> dict[str, object]:
    """Tell size, format, mean colour, brightness and checksum of a photograph."""
    content = _read(photo)
    image = _opened(content, photo)
    colour = image.convert("RGB")
    brightness = colour.convert("L").histogram()
    return {
        "photo": Path(photo).name,
        "format": image.format,
        "mode": image.mode,
        "width": image.width,
        "height": image.height,
        "mean_colour": [round(channel, 2) for channel in ImageStat.Stat(colour).mean],
        "brightness_quartiles": [level_at(brightness, share) for share in (0.25, 0.5, 0.75)],
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def fitted(size: Size, width: int) -> Size:
    """Give the size of a picture scaled to `width` pixels across, in proportion, never larger than it is."""
    across, down = size
    if width >= across:
        return size
    return width, max(1, round(down * width / across))


def centre_box(size: Size, target: Size) -> Box:
    """Give the largest box (left, upper, right, lower) in the middle of a picture with the proportions of `target`."""
    across, down = size
    scale = min(across / target[0], down / target[1])
    wide, high = max(1, round(target[0] * scale)), max(1, round(target[1] * scale))
    left, upper = (across - wide) // 2, (down - high) // 2
    return left, upper, left + wide, upper + high


def level_at(histogram: Sequence[int], share: float) -> int:
    """Give the lowest level that at least `share` of all pixels do not exceed; `share` is from 0 to 1."""
    wanted = share * sum(histogram)
    seen = 0
    for level, count in enumerate(histogram):
        seen += count
        if seen >= wanted:
            return level
    return len(histogram) - 1


def _read(photo: str) -> bytes:
    return find(Shelf.PHOTOS, photo).read_bytes()


def _opened(content: bytes, photo: str) -> Image.Image:
    # The bytes are in memory already, so an OSError here speaks of the picture and not of the disk: no retry will help.
    try:
        image = Image.open(BytesIO(content))
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Fail(f"{Path(photo).name} is not a readable photograph: {error}") from error
    return image


def _developed(content: bytes, photo: str) -> Image.Image:
    upright = ImageOps.exif_transpose(_opened(content, photo))
    return upright.convert("RGB")


def _written(image: Image.Image, output: str, name: str) -> dict[str, object]:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return {"width": image.width, "height": image.height, **write_whole(output, name, buffer.getvalue())}
