"""Animations that stay animations: frames, times, loops, disposal and blending, held against Pillow's own players."""

import io
import random
import struct
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from fixtures import containers, gifs, make
from fixtures.gifs import BLUE, CLEAR, GREEN, RED, control, gif, loops, picture
from imgsvc.imaging.limits import probe, settled
from imgsvc.imaging.pipeline import Rendering
from imgsvc.imaging.recipe import Recipe, Variant, scratch_file
from tests.support.rendered_paths import render

RECIPE = Recipe(
    (Variant("whole", 400, 90, 2, animated=True), Variant("small", 32, 90, 2)), max_pixels=1_000_000, max_frames=20
)
Film = list[tuple[Image.Image, int]]


def played(folder: Path, data: bytes, form: str, recipe: Recipe = RECIPE) -> Rendering:
    mime = f"image/{form.lower()}"
    (folder / "source").write_bytes(data)
    header = probe(io.BytesIO(data), mime, max_pixels=recipe.max_pixels)
    return render(folder / "source", mime, settled(header, recipe), folder)


def film(data: bytes) -> Film:
    """What Pillow shows, and for how many milliseconds."""
    found: Film = []
    with Image.open(io.BytesIO(data)) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
            found.append((image.convert("RGBA"), round(image.info.get("duration", 0))))
    return found


def made(folder: Path, name: str = "whole") -> bytes:
    return scratch_file(folder, name).read_bytes()


def merged(frames: Film) -> Film:
    """Without frames that look like the one before."""
    found: Film = []
    for image, milliseconds in frames:
        if found and not differs(found[-1][0], image):
            found[-1] = found[-1][0], found[-1][1] + milliseconds
        else:
            found.append((image, milliseconds))
    return found


def differs(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of what is seen."""
    over = [
        Image.alpha_composite(Image.new("RGBA", one.size, ground), each)
        for ground in ("black", "white")
        for each in (one, other)
    ]
    return max(
        _highest(ImageChops.difference(a, b).convert("RGB").getchannel(band))
        for a, b in ((over[0], over[1]), (over[2], over[3]))
        for band in "RGB"
    )


def _highest(band: Image.Image) -> int:
    return max(value for value, count in enumerate(band.histogram()) if count)


def assert_same(frames: Film, wanted: Film, tolerance: int = 0) -> None:
    assert [time for _, time in frames] == [time for _, time in wanted]
    far = [differs(one, other) for (one, _), (other, _) in zip(frames, wanted, strict=True)]
    assert max(far) <= tolerance, far


Pixels = list[list[tuple[int, int, int, int]]]


def any_gif(seed: int) -> tuple[bytes, Film]:
    """Pictures anywhere, with every disposal and clear pixels; and what they look like, pixel by pixel."""
    chance = random.Random(seed)
    width, height = chance.randint(8, 40), chance.randint(8, 40)
    screen: Pixels = [[(0, 0, 0, 0)] * width for _ in range(height)]
    blocks, frames = [loops(0)], []
    for _ in range(chance.randint(2, 9)):
        wide, high = chance.randint(1, width), chance.randint(1, height)
        left, top = chance.randint(0, width - wide), chance.randint(0, height - high)
        indices = [[chance.choice((RED, GREEN, BLUE, CLEAR)) for _ in range(wide)] for _ in range(high)]
        clear, disposal, hundredths = chance.choice((None, CLEAR, GREEN)), chance.randrange(4), chance.randint(2, 30)
        blocks.append(control(hundredths=hundredths, disposal=disposal, transparent=clear))
        blocks.append(picture(wide, high, b"".join(map(bytes, indices)), at=(left, top)))
        before = [row.copy() for row in screen]
        for y, row in enumerate(indices):
            for x, index in enumerate(row):
                if index != clear:
                    screen[top + y][left + x] = (*gifs.COLOURS[index], 255)
        image = Image.new("RGBA", (width, height))
        image.putdata([pixel for row in screen for pixel in row])
        frames.append((image, 10 * hundredths))
        if disposal == 3:
            screen = before
        elif disposal == 2:
            for y in range(top, top + high):
                screen[y][left : left + wide] = [(0, 0, 0, 0)] * wide
    return gif(width, height, *blocks), frames


@pytest.mark.parametrize("seed", range(30))
def test_gif_plays_as_it_says(tmp_path: Path, seed: int) -> None:
    data, frames = any_gif(seed)
    played(tmp_path, data, "GIF")
    assert_same(film(made(tmp_path)), merged(frames))


def any_frames(seed: int, mode: str) -> list[Image.Image]:
    chance = random.Random(seed)
    frames = [make.quadrants(90, 60).convert(mode)]
    for _ in range(5):
        image = frames[-1].copy()
        left, top = chance.randint(0, 70), chance.randint(0, 40)
        colour = (
            *chance.choice((make.RED, make.BLUE)),
            chance.choice((0, 255)),
        )  # Pillow lays half clear pixels over others wrongly
        image.paste(
            colour if mode == "RGBA" else colour[:3] if mode == "RGB" else colour[0] % 4,
            (left, top, left + 20, top + 15),
        )
        frames.append(image)
    return frames


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {}),
        ("RGB", {"default_image": True}),
        ("RGBA", {}),
        ("RGBA", {"blend": 1}),
        ("RGBA", {"disposal": 1}),
        ("RGBA", {"disposal": 2}),
        ("P", {}),
        ("L", {}),
    ],
)
def test_apng_plays_as_in_another_player(tmp_path: Path, mode: str, options: dict[str, int]) -> None:
    frames, times = any_frames(3, mode), [40, 100, 33, 250, 500, 20]
    times = times[1:] if "default_image" in options else times
    data = make.encoded(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=times, loop=3, **options)
    played(tmp_path, data, "PNG")
    wanted = film(data)[1:] if "default_image" in options else film(data)
    got = film(made(tmp_path))
    assert sum(time for _, time in got) == sum(times)
    assert_same(got, merged(wanted), tolerance=2)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize(
    ("options", "tolerance"),
    [({"lossless": True}, 0), ({"quality": 90}, 60), ({"lossless": True, "minimize_size": True}, 0)],
)
def test_webp_plays_as_in_another_player(tmp_path: Path, mode: str, options: dict[str, int], tolerance: int) -> None:
    frames, times = any_frames(4, mode), [40, 100, 33, 250, 500, 20]
    data = make.encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=times, loop=2, **options)
    played(tmp_path, data, "WEBP")
    assert_same(film(made(tmp_path)), merged(film(data)), tolerance)
    assert loops_of(made(tmp_path)) == 2


def loops_of(data: bytes) -> int:
    return int(struct.unpack_from("<H", dict(containers.webp_parts(data))[b"ANIM"], 4)[0])


def test_damaged_frame_ends_the_animation(tmp_path: Path) -> None:
    broken = gifs.descriptor(9, 9) + gifs.lzw(bytes([GREEN] * 9))
    sound = [picture(9, 9, RED), picture(9, 9, BLUE)]
    for blocks, frames in (((*sound, broken, *sound), 2), ((sound[0], broken, *sound), 1)):
        rendering = played(tmp_path, gif(9, 9, *blocks), "GIF")
        assert [one.frames for one in rendering.variants if one.name == "whole"] == [frames]


def test_animation_without_a_first_frame_is_a_still(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (9, 9), colour) for colour in (make.RED, make.GREEN, make.BLUE)]
    data = make.encoded(frames[0], "PNG", save_all=True, append_images=frames[1:], default_image=True)
    parts = [
        (kind, body[:4] + bytes(len(body) - 4) if kind == b"fdAT" else body)
        for kind, body in containers.png_parts(data)
    ]
    rendering = played(tmp_path, containers.png_file(parts), "PNG")
    assert {one.name: one.frames for one in rendering.variants} == {"whole": 1, "small": 1, "poster": 1}


@pytest.mark.parametrize(("said", "plays"), [(None, 1), (0, 0), (1, 2), (9, 10), (65_535, 65_535)])
def test_loops_of_a_gif(tmp_path: Path, said: int | None, plays: int) -> None:
    blocks = [] if said is None else [loops(said)]
    played(tmp_path, gif(9, 9, *blocks, picture(9, 9, RED), picture(9, 9, BLUE)), "GIF")
    assert loops_of(made(tmp_path)) == plays
