"""The part of the command line that a call needs. Typer would read the signatures of all other commands too: 8 ms."""

import copy
from collections.abc import Sequence

import typer
from typer.main import get_command_name
from typer.models import CommandInfo


def narrowed(app: typer.Typer, words: Sequence[str]) -> typer.Typer:
    """`app` with nothing but the command or group that the first word names; `app` itself if it names none."""
    first = words[0] if words else ""
    commands = [one for one in app.registered_commands if _name(one) == first]
    groups = [one for one in app.registered_groups if one.name == first]
    if not commands and not groups:  # help, --version, or a mistake
        return app
    few = copy.copy(app)
    few.registered_commands, few.registered_groups = commands, groups
    return few


def _name(command: CommandInfo) -> str:
    return command.name or (get_command_name(command.callback.__name__) if command.callback else "")
