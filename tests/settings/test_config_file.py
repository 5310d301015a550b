"""Each setting is described where it is declared, and config.toml and the reference are made from that."""

import re
import tomllib

import pytest

from docs import config_file
from docs.pages import ROOT
from docs.sources import settings as documented
from imgsvc import Settings
from imgsvc.settings import SettingInfo, all_settings, environment_names

SETTINGS = [one for one in all_settings() if not one.retired]
SCALES = {  # numbers without unit
    "port",
    "webp_quality",
    "webp_quality_by_size",
    "webp_effort",
    "webp_effort_by_size",
    "avif_quality",
    "avif_effort",
}
UNITS_IN_NAMES = {
    "_kb": "KB",
    "_mb": "MB",
    "_ms": "milliseconds",
    "_seconds": "seconds",
    "_minutes": "minutes",
    "_hours": "hours",
    "_days": "days",
    "_bytes_per_second": "bytes per second",
    "_pixels": "pixels",
}


def name(one: SettingInfo) -> str:
    return f"{one.section}.{one.field}"


def test_config_file_holds_every_setting_with_its_default() -> None:
    shown = tomllib.loads((ROOT / "config.toml").read_text())
    assert shown == Settings().model_dump(mode="json")


def test_config_file_is_what_the_declarations_say() -> None:
    assert (ROOT / "config.toml").read_text() == config_file.text(), "run ./run docs"


def test_lines_of_the_config_file_fit_a_screen() -> None:
    assert max(map(len, config_file.text().splitlines())) <= config_file.WIDTH


def test_config_file_and_reference_name_every_environment_variable() -> None:
    text = (ROOT / "config.toml").read_text()
    reference = (ROOT / "docs" / "reference" / "settings.md").read_text()
    for _, _, environment in environment_names():
        assert f"[{environment}]" in text
        assert f"`{environment}`" in reference


@pytest.mark.parametrize("one", SETTINGS, ids=name)
def test_setting_is_described_in_sentences(one: SettingInfo) -> None:
    assert len(one.words.split()) > 2 and one.words.endswith(".")
    assert one.words == " ".join(one.words.split())


@pytest.mark.parametrize("one", SETTINGS, ids=name)
def test_quantity_has_a_unit_and_bounds(one: SettingInfo) -> None:
    (shown,) = (known for known in documented() if (known.section, known.field) == (one.section, one.field))
    is_number = isinstance(shown.value, int | float) and not isinstance(shown.value, bool)
    if is_number or isinstance(shown.value, dict):
        assert re.search(r"\d", shown.bounds) and "None" not in shown.bounds
        assert bool(one.unit) == (one.field not in SCALES)
    else:
        assert not one.unit


@pytest.mark.parametrize("one", SETTINGS, ids=name)
def test_unit_is_the_one_that_the_name_promises(one: SettingInfo) -> None:
    for end, unit in UNITS_IN_NAMES.items():
        if one.field.endswith(end):
            assert one.unit == unit
