"""The photo pack: proportions, levels, and what it makes of good and broken pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from examples.photos import centre_box, crop, fitted, level_at, metadata, thumbnail
from examples.shelf import Shelf, titles
from taskplatform import Fail

WHOLE = [name for name in titles(Shelf.PHOTOS) if name != "truncated.jpg"]


@pytest.fixture
def half_red_half_black(tmp_path: Path) -> str:
    image = Image.new("RGB", (4, 2), "black")
    image.paste((255, 0, 0), (0, 0, 2, 2))
    path = tmp_path / "halves.png"
    image.save(path)
    return str(path)


@pytest.mark.parametrize(
    ("size", "width", "expected"),
    [
        ((640, 480), 320, (320, 240)),
        ((480, 640), 240, (240, 320)),
        ((128, 128), 320, (128, 128)),
        ((900, 1), 3, (3, 1)),
    ],
)
def test_a_thumbnail_keeps_proportions_and_is_never_blown_up(
    size: tuple[int, int], width: int, expected: tuple[int, int]
) -> None:
    assert fitted(size, width) == expected


@pytest.mark.parametrize(
    ("size", "target", "expected"),
    [
        ((640, 480), (100, 100), (80, 0, 560, 480)),
        ((480, 640), (100, 100), (0, 80, 480, 560)),
        ((640, 480), (320, 240), (0, 0, 640, 480)),
        ((100, 100), (200, 100), (0, 25, 100, 75)),
    ],
)
def test_a_crop_is_the_largest_box_in_the_middle(
    size: tuple[int, int], target: tuple[int, int], expected: tuple[int, int, int, int]
) -> None:
    assert centre_box(size, target) == expected


@pytest.mark.parametrize(("share", "level"), [(0.0, 0), (0.25, 1), (0.5, 1), (0.75, 3), (1.0, 3)])
def test_a_level_is_the_lowest_that_the_share_of_pixels_does_not_exceed(share: float, level: int) -> None:
    assert level_at([0, 2, 0, 2], share) == level


def test_metadata_of_a_picture_painted_by_hand_is_exact(half_red_half_black: str) -> None:
    facts = metadata(half_red_half_black)

    assert (facts["width"], facts["height"], facts["format"], facts["mode"]) == (4, 2, "PNG", "RGB")
    assert facts["mean_colour"] == [127.5, 0.0, 0.0]
    assert facts["brightness_quartiles"] == [0, 0, 76]


@pytest.mark.parametrize("photo", WHOLE)
def test_each_photograph_that_comes_with_the_pack_gives_a_thumbnail_of_its_proportions(
    photo: str, tmp_path: Path
) -> None:
    made = thumbnail(photo, str(tmp_path), width=64)

    facts = metadata(photo)
    width, height = facts["width"], facts["height"]
    assert isinstance(width, int)
    assert isinstance(height, int)
    with Image.open(str(made["file"])) as image:
        assert image.size == fitted((width, height), 64)


def test_a_crop_has_exactly_the_size_asked_for(tmp_path: Path) -> None:
    made = crop("flower.jpg", str(tmp_path), width=50, height=90)

    with Image.open(str(made["file"])) as image:
        assert image.size == (50, 90)


def test_a_thumbnail_made_twice_is_the_same_file(tmp_path: Path) -> None:
    first = thumbnail("flower.jpg", str(tmp_path))

    second = thumbnail("flower.jpg", str(tmp_path))

    assert first == second
    assert [path.name for path in tmp_path.iterdir()] == ["flower-320w.jpg"]


def test_a_truncated_photograph_is_hopeless(tmp_path: Path) -> None:
    with pytest.raises(Fail, match=r"truncated\.jpg is not a readable photograph"):
        thumbnail("truncated.jpg", str(tmp_path))

    assert list(tmp_path.iterdir()) == []


def test_a_photograph_that_is_not_there_may_appear_later(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        metadata(str(tmp_path / "absent.jpg"))
