import tomllib
from pathlib import Path

from imgsvc import Settings
from imgsvc.settings import environment_names

ROOT = Path(__file__).parents[2]


def test_config_file_holds_every_setting_with_its_default() -> None:
    shown = tomllib.loads((ROOT / "config.toml").read_text())
    defaults = Settings().model_dump(mode="json")
    assert shown == defaults


def test_config_file_and_reference_name_every_environment_variable() -> None:
    text = (ROOT / "config.toml").read_text()
    reference = (ROOT / "docs" / "reference" / "settings.md").read_text()
    for _, _, name in environment_names():
        assert f"[{name}]" in text
        assert f"`{name}`" in reference
