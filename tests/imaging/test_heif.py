"""HEIC and AVIF: right pixels of files by the libraries' own encoders and by two other programs."""

import io
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from fixtures import coded, make, profiles
from imgsvc.imaging import optional_codecs
from imgsvc.imaging.any_header import read_header
from imgsvc.imaging.heif import essentials
from imgsvc.imaging.limits import render_bytes
from imgsvc.imaging.pieces import Pieces
from tests.support.rendering import RECIPE, Studio, assert_upright, near, photo

pytest.importorskip("pillow_heif")
pytest.importorskip("pillow_avif")
SIZE = (320, 200)
PICTURE = make.quadrants(*SIZE)


@pytest.fixture(scope="module", autouse=True)
def codecs() -> dict[str, str]:
    return optional_codecs.load()


def clear() -> Image.Image:
    picture = PICTURE.convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(SIZE))
    return picture


def own(form: str, image: Image.Image = PICTURE, **options: object) -> bytes:
    return coded.heic(image, quality=90, **options) if form == "HEIC" else coded.avif(image, quality=90, **options)


def by_program(folder: Path, *command: str, image: Image.Image = PICTURE) -> bytes:
    """What another program makes of a PNG: `IN` and `OUT` stand for its files."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    source, target = folder / "in.png", folder / ("out.heic" if command[0] == "heif-enc" else "out.avif")
    image.save(source)
    names = {"IN": str(source), "OUT": str(target)}
    subprocess.run([names.get(word, word) for word in command], check=True, capture_output=True, timeout=60)
    return target.read_bytes()


@pytest.mark.parametrize("form", ["HEIC", "AVIF"])
def test_a_picture_keeps_its_size_and_colours(studio: Studio, form: str) -> None:
    rendering = studio.render(own(form), form)
    assert (rendering.width, rendering.height, rendering.frames) == (*SIZE, 1)
    for variant in rendering.variants:
        assert_upright(studio.variant(variant.name))


@pytest.mark.parametrize("form", ["HEIC", "AVIF"])
def test_alpha_is_kept(studio: Studio, form: str) -> None:
    studio.render(own(form, clear()), form)
    found = studio.variant("large")
    assert found.mode == "RGBA"
    assert_upright(found)
    top, bottom = (found.getpixel((10, y)) for y in (10, found.height - 10))
    assert isinstance(top, tuple) and isinstance(bottom, tuple)
    assert abs(top[3] - 13) < 12 and abs(bottom[3] - 242) < 12


@pytest.mark.parametrize("form", ["HEIC", "AVIF"])
def test_grey(studio: Studio, form: str) -> None:
    studio.render(own(form, PICTURE.convert("L")), form)
    grey = PICTURE.convert("L").getpixel((10, 10))
    assert isinstance(grey, int)
    assert near(studio.variant("large").convert("RGB").getpixel((10, 10)), (grey,) * 3)


def test_a_grid_of_tiles(studio: Studio) -> None:
    image = make.quadrants(1000, 700)
    data = coded.heic(image, quality=90, tile_size=256)
    header = read_header(io.BytesIO(data), "image/heic")
    assert header.canvas == (1000, 700)
    assert header.coded_pixels == 12 * 256 * 256
    rendering = studio.render(data, "HEIC")
    assert (rendering.width, rendering.height) == (1000, 700)
    assert_upright(studio.variant("large"))


def test_a_grid_by_another_program(studio: Studio, tmp_path: Path) -> None:
    data = by_program(tmp_path, "avifenc", "-s", "10", "--grid", "2x2", "IN", "OUT", image=make.quadrants(640, 400))
    rendering = studio.render(data, "AVIF")
    assert (rendering.width, rendering.height) == (640, 400)
    assert_upright(studio.variant("large"))


@pytest.mark.parametrize(
    "command",
    [
        ("heif-enc", "-q", "90", "-o", "OUT", "IN"),
        ("heif-enc", "-q", "90", "-b", "10", "-o", "OUT", "IN"),
        ("heif-enc", "-q", "90", "-p", "chroma=444", "-o", "OUT", "IN"),
        ("avifenc", "-s", "10", "IN", "OUT"),
        ("avifenc", "-s", "10", "-d", "10", "IN", "OUT"),
        ("avifenc", "-s", "10", "-d", "12", "-y", "444", "IN", "OUT"),
        ("avifenc", "-s", "10", "-p", "IN", "OUT"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("alpha", [False, True])
def test_files_of_other_programs(studio: Studio, tmp_path: Path, command: tuple[str, ...], alpha: bool) -> None:
    form = "HEIC" if command[0] == "heif-enc" else "AVIF"
    rendering = studio.render(by_program(tmp_path, *command, image=clear() if alpha else PICTURE), form)
    assert (rendering.width, rendering.height) == SIZE
    found = studio.variant("large")
    assert (found.mode == "RGBA") is alpha
    if alpha:  # where it is nearly transparent, a premultiplied colour has few bits left
        width, height = found.size
        assert near(found.convert("RGB").getpixel((width // 4, height * 3 // 4)), make.BLUE)
    else:
        assert_upright(found)


def test_odd_sides_are_cropped_from_what_is_coded(studio: Studio, tmp_path: Path) -> None:
    """This program pads to even sides and writes a crop (`clap`)."""
    image = make.quadrants(321, 203)
    rendering = studio.render(by_program(tmp_path, "heif-enc", "-q", "90", "-o", "OUT", "IN", image=image), "HEIC")
    assert (rendering.width, rendering.height) == (321, 203)
    assert_upright(studio.variant("large"))


TURNS = [((), 1), (("--irot", "1"), 8), (("--irot", "2"), 3), (("--irot", "3"), 6), (("--imir", "0"), 4)]
TURNS += [(("--imir", "1"), 2), (("--irot", "1", "--imir", "0"), 0), (("--irot", "1", "--imir", "1"), 0)]


@pytest.mark.parametrize(("options", "expected"), TURNS, ids=[" ".join(one) or "none" for one, _ in TURNS])
def test_turns_and_mirrors_are_applied_once(
    studio: Studio, tmp_path: Path, options: tuple[str, ...], expected: int
) -> None:
    """The same program shows the file: its picture is what ours has to be."""
    data = by_program(tmp_path, "avifenc", "-s", "10", *options, "IN", "OUT")
    if expected:
        assert essentials(io.BytesIO(data), "AVIF")[2] == expected
    studio.render(data, "AVIF")
    assert shutil.which("heif-convert"), "it comes with heif-enc"
    (tmp_path / "seen.avif").write_bytes(data)
    command = ["heif-convert", str(tmp_path / "seen.avif"), str(tmp_path / "seen.png")]
    if subprocess.run(command, capture_output=True, timeout=60).returncode:
        pytest.skip("this libheif has no decoder of AV1")
    with Image.open(tmp_path / "seen.png") as seen:
        ours = studio.variant("large")
        same = seen.convert("RGB").resize(ours.size)
    for x, y in ((1, 1), (3, 1), (1, 3), (3, 3)):
        place = ours.width * x // 4, ours.height * y // 4
        expected_colour = same.getpixel(place)
        assert isinstance(expected_colour, tuple)
        assert near(ours.convert("RGB").getpixel(place), expected_colour, 24)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_exif_is_no_second_turn(studio: Studio, orientation: int) -> None:
    """The encoder writes `irot` and `imir` for it, and some leave it in the EXIF block as well."""
    for form, name in (("HEIC", "HEIF"), ("AVIF", "AVIF")):
        studio.render(make.oriented(orientation, name, quality=90), form)
        assert_upright(studio.variant("large"))


@pytest.mark.parametrize("form", ["HEIC", "AVIF"])
def test_profile_is_converted(studio: Studio, form: str) -> None:
    studio.render(own(form, PICTURE, icc_profile=profiles.display_p3()), form)
    red = studio.variant("large").convert("RGB").getpixel((10, 10))
    assert isinstance(red, tuple)
    assert red[0] > make.RED[0] + 8, "the same numbers are a stronger red in Display P3"


def test_code_points_of_a_wide_gamut_are_converted(studio: Studio, tmp_path: Path) -> None:
    data = by_program(tmp_path, "avifenc", "-s", "10", "--cicp", "12/13/6", "IN", "OUT")
    studio.render(data, "AVIF")
    red = studio.variant("large").convert("RGB").getpixel((10, 10))
    assert isinstance(red, tuple) and red[0] > make.RED[0] + 8


def test_hdr_is_tone_mapped(studio: Studio, tmp_path: Path) -> None:
    """PQ: a code of 245 / 255 is far brighter than reference white."""
    data = by_program(tmp_path, "avifenc", "-s", "10", "-d", "10", "--cicp", "9/16/9", "IN", "OUT")
    studio.render(data, "AVIF")
    found = studio.variant("large").convert("RGB")
    assert near(found.getpixel((found.width * 3 // 4, found.height * 3 // 4)), (255, 255, 255), 4)


def test_still_of_a_sequence(studio: Studio) -> None:
    frames = [make.quadrants(*SIZE).rotate(180) for _ in range(3)]
    data = coded.avif(PICTURE, save_all=True, append_images=frames, duration=100, quality=90)
    rendering = studio.render(data, "AVIF")
    assert rendering.frames == 1
    assert_upright(studio.variant("large"))


def test_still_of_a_sequence_by_another_program(studio: Studio, tmp_path: Path) -> None:
    other = tmp_path / "other.png"
    PICTURE.rotate(180).save(other)
    data = by_program(tmp_path, "avifenc", "-s", "10", "--timescale", "10", "IN", str(other), str(other), "OUT")
    assert b"avis" in data[:40] and b"moov" in data
    rendering = studio.render(data, "AVIF")
    assert (rendering.frames, rendering.width, rendering.height) == (1, *SIZE)
    assert_upright(studio.variant("large"))


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_orientation_that_another_program_only_copies(studio: Studio, tmp_path: Path, orientation: int) -> None:
    """It (1.15) keeps the EXIF block and writes no `irot`: the picture is shown as its own viewer shows it."""
    photo_file, seen_file = tmp_path / "photo.jpg", tmp_path / "seen.png"
    photo_file.write_bytes(make.oriented(orientation, "JPEG", quality=95))
    data = by_program(tmp_path, "heif-enc", "-q", "90", "-o", "OUT", str(photo_file))
    assert b"Exif" in data
    studio.render(data, "HEIC")
    assert shutil.which("heif-convert"), "it comes with heif-enc"
    command = ["heif-convert", str(tmp_path / "out.heic"), str(seen_file)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    ours = studio.variant("large").convert("RGB")
    with Image.open(seen_file) as seen:
        same = seen.convert("RGB").resize(ours.size)
    for x, y in ((1, 1), (3, 1), (1, 3), (3, 3)):
        place = ours.width * x // 4, ours.height * y // 4
        expected = same.getpixel(place)
        assert isinstance(expected, tuple) and near(ours.getpixel(place), expected, 24)


@pytest.mark.parametrize("program", ["heif-enc", "avifenc"])
def test_profile_by_another_program_is_converted(studio: Studio, tmp_path: Path, program: str) -> None:
    source = tmp_path / "wide.png"
    PICTURE.save(source, icc_profile=profiles.display_p3())
    options = ("-q", "90", "-o", "OUT", str(source)) if program == "heif-enc" else ("-s", "10", str(source), "OUT")
    studio.render(by_program(tmp_path, program, *options), "HEIC" if program == "heif-enc" else "AVIF")
    red = studio.variant("large").convert("RGB").getpixel((10, 10))
    assert isinstance(red, tuple) and red[0] > make.RED[0] + 8


@pytest.mark.parametrize("form", ["HEIF", "AVIF"])
def test_decoder_sees_no_metadata_and_no_thumbnail(form: str) -> None:
    """The file that it gets holds the primary picture's items only."""
    secret = b"where this was taken"
    if form == "HEIF":
        data = coded.heic(PICTURE, quality=90, xmp=secret, exif=make.exif(6), thumbnails=[64])
    else:
        data = coded.avif(PICTURE, quality=90, xmp=secret, exif=make.exif(6))
    assert secret in data
    stream = io.BytesIO(data)
    passed = Pieces(stream, essentials(stream, form)[0]).read()
    assert secret not in passed and passed.count(b"infe") == 1
    assert not any(kind in passed for kind in (b"irot", b"imir", b"Exif", b"thmb"))


@pytest.mark.parametrize("form", ["HEIC", "AVIF"])
def test_previews_have_the_bytes_of_the_render(studio: Studio, form: str) -> None:
    data = own(form, make.photo(640, 480))
    assert studio.preview(data, form)
    small = studio.bytes_of("small")
    studio.render(data, form)
    assert studio.bytes_of("small") == small


def test_more_bits_and_alpha_are_estimated_higher() -> None:
    plain, deep = (read_header(io.BytesIO(photo_of(bits)), "image/avif") for bits in (8, 10))
    assert (plain.bits, deep.bits) == (8, 10)
    assert render_bytes(deep, RECIPE) > render_bytes(plain, RECIPE)


def photo_of(bits: int) -> bytes:
    data = bytearray(coded.avif(make.photo(640, 480)))
    at = data.index(b"av1C") + 6
    data[at] |= 0x40 if bits == 10 else 0
    return bytes(data)


def test_photo_looks_the_same(studio: Studio) -> None:
    source = Image.open(io.BytesIO(photo("PNG", (300, 225)))).convert("RGB")
    for form in ("HEIC", "AVIF"):
        studio.render(own(form, source), form)
        found = studio.variant("large").convert("RGB")
        pairs = zip(found.tobytes(), source.tobytes(), strict=True)
        assert sum(abs(a - b) for a, b in pairs) / len(source.tobytes()) < 6, form
