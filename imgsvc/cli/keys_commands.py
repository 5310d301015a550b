"""`imgsvc keys`: create, list and revoke API keys."""

import json
from typing import Annotated

import typer

from .options import WRONG, AsJson, ConfigFile, act_on_each, loaded, print_found, stop

keys = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)


@keys.command()
def create(
    name: Annotated[str, typer.Option(help="A label for people, such as the application that uses it.")],
    sub: Annotated[str, typer.Option(help="The user that it acts as.")],
    org: Annotated[str, typer.Option(help="The user's organisation.")] = "default-org",
    permission: Annotated[
        list[str] | None, typer.Option(help="A permission of the key; may be repeated. image:upload unless given.")
    ] = None,
    narrower: Annotated[
        str | None, typer.Option(help="Limits as a JSON object, as in the claim imgsvc of a token.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Print a new API key. It is shown this once: only its SHA-256 is kept."""
    from pydantic import ValidationError

    from ..access.permissions import UPLOAD
    from ..access.token_limits import TokenLimits, reason_of
    from ..access.tokens import MAX_NAME_CHARACTERS
    from .keys import keys_of

    texts = [("--name", name), ("--sub", sub), ("--org", org), *(("--permission", one) for one in permission or ())]
    for option, text in texts:
        if not text.isprintable() or not 0 < len(text) <= MAX_NAME_CHARACTERS:
            stop(f"{option} must be printable and have 1 to {MAX_NAME_CHARACTERS} characters", WRONG)
    try:
        limits = TokenLimits.model_validate(json.loads(narrower)) if narrower else TokenLimits()
    except ValidationError as error:
        stop(f"--narrower: {reason_of(error)}", WRONG)
    except ValueError as error:
        stop(f"--narrower: must be a JSON object: {error}", WRONG)
    typer.echo(keys_of(loaded(config)).created(name, sub, org, permission or [UPLOAD], limits))


@keys.command("list")
def list_keys(as_json: AsJson = False, config: ConfigFile = None) -> None:
    """List all API keys, without their secrets."""
    from .keys import keys_of
    from .tables import print_keys

    found = keys_of(loaded(config)).listed()
    print_found(found, as_json, print_keys)


@keys.command()
def revoke(key_ids: list[str], config: ConfigFile = None) -> None:
    """Revoke API keys, at once and for good."""
    from .keys import keys_of

    known = keys_of(loaded(config))

    def revoked(key_id: str) -> str:
        known.revoke(key_id)
        return "revoked"

    act_on_each(key_ids, revoked)
