import random
import time

import pytest
from PIL import Image, ImageChops

from fixtures import make
from imgsvc.imaging.dominant import bins_of, dominant_colour

Colour = tuple[int, int, int]
SIZE = (200, 120)


def rgb(name: str) -> Colour:
    assert len(name) == 7 and name[0] == "#" and name == name.lower()
    return int(name[1:3], 16), int(name[3:5], 16), int(name[5:], 16)


def near(name: str, colour: Colour, tolerance: int = 3) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(rgb(name), colour, strict=True))


def noise(size: tuple[int, int], seed: int = 1) -> Image.Image:
    return Image.frombytes("RGB", size, random.Random(seed).randbytes(size[0] * size[1] * 3))


@pytest.mark.parametrize("colour", [make.RED, make.GREEN, make.WHITE, (0, 0, 0), (255, 255, 255), (9, 8, 7)])
@pytest.mark.parametrize("size", [SIZE, (1, 1), (1, 5000), (5000, 1), (64, 64)])
def test_one_colour_is_itself(colour: Colour, size: tuple[int, int]) -> None:
    assert rgb(dominant_colour(Image.new("RGB", size, colour))) == colour


@pytest.mark.parametrize("across", [False, True])
def test_red_beside_green_is_not_brown(across: bool) -> None:
    image = Image.new("RGB", SIZE, make.RED)
    image.paste(make.GREEN, (0, 0, 200, 60) if across else (0, 0, 100, 120))
    name = dominant_colour(image)
    assert near(name, make.RED) or near(name, make.GREEN)


@pytest.mark.parametrize("share", [0.55, 0.6, 0.8])
def test_the_larger_part_wins(share: float) -> None:
    image = Image.new("RGB", SIZE, make.RED)
    image.paste(make.GREEN, (0, 0, int(SIZE[0] * share), SIZE[1]))
    assert near(dominant_colour(image), make.GREEN)


@pytest.mark.parametrize("seed", range(5))
def test_blue_among_noise_is_blue(seed: int) -> None:
    image = noise(SIZE, seed)
    image.paste(make.BLUE, (0, 0, 120, 120))
    assert near(dominant_colour(image), make.BLUE, 12)


def test_blue_sprinkled_with_noise_is_blue() -> None:
    source = random.Random(2)
    image = noise((64, 64))
    mask = Image.frombytes("L", (64, 64), bytes(255 * (source.random() < 0.6) for _ in range(64 * 64)))
    image.paste(make.BLUE, (0, 0), mask)
    assert near(dominant_colour(image), make.BLUE, 12)


@pytest.mark.parametrize(("red_alpha", "expected"), [(0, make.BLUE), (10, make.BLUE), (255, make.RED)])
def test_alpha_is_weight(red_alpha: int, expected: Colour) -> None:
    image = Image.new("RGBA", SIZE, (*make.RED, red_alpha))
    image.paste((*make.BLUE, 255), (0, 0, 60, 60))
    assert near(dominant_colour(image), expected, 8)


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 0, 0)])
def test_nothing_to_see_has_a_name_too(colour: Colour) -> None:
    rgb(dominant_colour(Image.new("RGBA", SIZE, (*colour, 0))))


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_a_colour_on_the_border_of_two_bins_is_not_outvoted(channel: int) -> None:
    image = Image.new("RGB", (64, 64), (200, 30, 220))
    low, high = [100, 100, 100], [100, 100, 100]
    low[channel], high[channel] = 127, 128
    for y in range(38):
        image.paste((*(low if y % 2 else high),), (0, y, 64, y + 1))
    expected = (low[0], low[1], low[2])
    assert near(dominant_colour(image), expected)


def test_a_gradient_across_bins_beats_a_flat_patch() -> None:
    image = Image.new("RGB", (64, 64), make.RED)
    for x in range(40):
        image.paste((40, 60 + x // 2, 200 - x // 2), (x, 0, x + 1, 64))
    assert near(dominant_colour(image), (40, 70, 190), 12)


@pytest.mark.parametrize("odd", [(0, 0, 0), (255, 255, 255), (0, 255, 0)])
@pytest.mark.parametrize("size", [(64, 64), (300, 200)])
def test_one_odd_pixel_does_not_matter(odd: Colour, size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, make.BLUE)
    image.putpixel((size[0] // 2, size[1] // 2), odd)
    assert near(dominant_colour(image), make.BLUE, 1)


def test_the_answer_depends_on_the_picture_alone() -> None:
    image = make.photo(300, 200)
    before = image.copy()
    assert dominant_colour(image) == dominant_colour(image) == dominant_colour(before)
    assert ImageChops.difference(image, before).getbbox() is None


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_quick_even_for_noise(mode: str) -> None:
    image = noise((600, 600)).convert(mode)
    times = []
    for _ in range(7):
        start = time.perf_counter()
        dominant_colour(image)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_bins_are_those_of_a_loop_over_the_pixels(mode: str) -> None:
    sample = Image.frombytes(mode, (64, 48), random.Random(3).randbytes(64 * 48 * len(mode))).convert("RGBA")
    votes: dict[tuple[int, ...], list[int]] = {}
    samples = iter(sample.tobytes())
    for *colour, alpha in zip(samples, samples, samples, samples, strict=True):
        found = votes.setdefault(tuple(value >> 5 for value in colour), [0, 0, 0, 0])
        found[:] = [found[0] + alpha, *(sum_ + value * alpha for sum_, value in zip(found[1:], colour, strict=True))]
    means = [(weight, *(channel / weight for channel in channels)) for weight, *channels in votes.values() if weight]
    assert sorted(bins_of(sample)) == sorted(means)
