"""A call builds only the command that it names."""

import pytest
import typer.main

from imgsvc.cli.main import app
from imgsvc.cli.narrowed import narrowed

ALL = typer.main.get_group(app)


@pytest.mark.parametrize("name", sorted(ALL.commands))
def test_only_the_named_command_is_built(name: str) -> None:
    few = typer.main.get_group(narrowed(app, [name, "--help"]))
    assert list(few.commands) == [name]
    assert [one.name for one in few.params] == [one.name for one in ALL.params]
    assert few.commands[name].help == ALL.commands[name].help
    assert getattr(few.commands[name], "commands", {}).keys() == getattr(ALL.commands[name], "commands", {}).keys()


@pytest.mark.parametrize("words", [[], ["--help"], ["--version"], ["jobz"], ["", "jobs"]])
def test_without_a_name_all_are_there(words: list[str]) -> None:
    assert narrowed(app, words) is app
