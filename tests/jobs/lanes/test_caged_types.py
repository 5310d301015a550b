"""HEIC and AVIF: accepted where every worker decodes them in the whole cage, else refused like any other type."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from fixtures import coded, hostile_heif, make
from imgsvc.jobs.lanes import caged_types
from imgsvc.jobs.lanes.cage import Posture
from imgsvc.jobs.lanes.caged_types import AVIF, HEIC, accepted_types
from tests.conftest import Starter

ALL = ("image/jpeg", HEIC, AVIF)
BOTH = {HEIC: "libheif 1.23.6", AVIF: "libavif 1.4.2"}


@dataclass
class Lane:
    """A lane as it reports itself."""

    posture: Posture | None = field(default_factory=lambda: Posture("best", 7, seccomp=True, limits=True))
    decoders: Mapping[str, str] = field(default_factory=lambda: BOTH)
    local: bool = True


def test_all_types_where_the_cage_stands() -> None:
    assert accepted_types(ALL, [Lane(), Lane()]) == ALL
    assert accepted_types((AVIF,), [Lane()]) == (AVIF,)
    assert accepted_types(ALL, [Lane(), Lane(None, local=False)]) == ALL  # another machine says what its cage decodes


@pytest.mark.parametrize(
    "lane",
    [
        Lane(Posture("off", 0, seccomp=False, limits=False)),
        Lane(Posture("best", 0, seccomp=True, limits=True)),
        Lane(Posture("best", 7, seccomp=False, limits=True)),
        Lane(Posture("best", 7, seccomp=True, limits=False)),
        Lane(decoders={}),
        Lane(None, {}, local=False),
    ],
    ids=["off", "no Landlock", "no seccomp", "no limits", "no decoder", "another machine"],
)
def test_one_lane_that_can_not_is_enough_to_refuse(lane: Lane) -> None:
    assert accepted_types(ALL, [Lane(), lane]) == ("image/jpeg",)


def test_lane_that_has_not_started_decides_nothing() -> None:
    assert accepted_types(ALL, [Lane(None)]) == ("image/jpeg",)
    assert accepted_types(ALL, [Lane(), Lane(None)]) == ALL


def test_decoder_of_an_older_libheif_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    from imgsvc.imaging import optional_codecs

    pytest.importorskip("pillow_heif")
    monkeypatch.setattr(optional_codecs, "LIBHEIF_FLOOR", (99, 0, 0))
    assert HEIC not in optional_codecs.load()
    with pytest.raises(optional_codecs.TooOld, match=r"libheif [\d.]+ is older than 99\.0\.0"):
        optional_codecs.LOADERS[HEIC]()


@pytest.mark.workers
async def test_pictures_are_decoded_in_the_cage(start: Starter) -> None:
    pytest.importorskip("pillow_heif")
    pytest.importorskip("pillow_avif")
    picture = make.photo(320, 240)
    files = {
        HEIC: coded.heic(picture, quality=80),
        AVIF: coded.avif(picture, quality=80),
        "grid": coded.heic(picture, quality=80, tile_size=128),
    }
    async with start() as s:
        assert (await s.http.get("/info")).json()["processing"]["allowed_mime_types"][-2:] == [HEIC, AVIF]
        for name, data in files.items():
            job = await s.completed(data)
            result = (await s.http.get(f"/api/v1/images/jobs/{job['job_id']}/result")).json()
            assert result["metadata"]["original_dimensions"] == {"width": 320, "height": 240}, name
        for name, (data, _) in hostile_heif.NAMED.items():
            refused = await s.upload(data)
            assert refused.status_code == 422, name
            assert refused.json()["code"] in ("image_too_large", "image_unsupported"), name
        assert s.staged() == []


@pytest.mark.workers
async def test_heic_is_refused_where_it_is_off(start: Starter) -> None:
    pytest.importorskip("pillow_heif")
    async with start(images={"heic": "off"}) as s:
        refused = await s.upload(coded.heic(make.photo(64, 48)))
        assert refused.status_code == 415 and HEIC not in refused.json()["detail"].partition("Allowed")[2]


@pytest.mark.workers
async def test_both_are_refused_without_a_cage(start: Starter) -> None:
    pytest.importorskip("pillow_avif")
    async with start(workers={"cage": "off"}) as s:
        refused = await s.upload(coded.avif(make.photo(64, 48)))
        assert refused.json()["detail"] == (
            "Unsupported file type: image/avif. Allowed: image/jpeg, image/png, image/webp, image/gif"
        )


def test_every_type_of_the_cage_has_a_package() -> None:
    from imgsvc.imaging import optional_codecs

    assert set(caged_types.CAGED) == set(optional_codecs.PACKAGES) == set(optional_codecs.LOADERS)
