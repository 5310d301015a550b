"""`{NAME}_FILE` names a file that holds what `{NAME}` would say."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from imgsvc import Settings
from imgsvc.settings import SettingsError, environment_names
from tests.support.server_process import InlineServer

SECRET = "a-secret-of-forty-characters-or-some-more"


def load(folder: Path, environ: Mapping[str, str], env: str = "") -> Settings:
    (folder / "my.toml").touch()
    (folder / ".env").write_text(env)
    return Settings.load(folder / "my.toml", environ)


def problem(folder: Path, environ: Mapping[str, str], env: str = "") -> str:
    with pytest.raises(SettingsError) as raised:
        load(folder, environ, env)
    message = str(raised.value)
    assert "\n" not in message and SECRET not in message
    return message


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_one_newline_at_the_end_does_not_count(tmp_path: Path, end: str) -> None:
    (tmp_path / "jwt").write_bytes((SECRET + end).encode())
    settings = load(tmp_path, {"JWT_SECRET_KEY_FILE": str(tmp_path / "jwt")})
    assert settings.auth.jwt_secret_key.get_secret_value() == SECRET


def test_everything_else_counts(tmp_path: Path) -> None:
    (tmp_path / "jwt").write_text(f" {SECRET}\n\n")
    settings = load(tmp_path, {"JWT_SECRET_KEY_FILE": str(tmp_path / "jwt")})
    assert settings.auth.jwt_secret_key.get_secret_value() == f" {SECRET}\n"


def test_any_setting_can_come_from_a_file_and_the_env_file_can_say_so(tmp_path: Path) -> None:
    (tmp_path / "port").write_text("1234\n")
    (tmp_path / "name").write_text("pictures\n")
    env = f"IMGSVC_SERVER_PORT_FILE={tmp_path / 'port'}\nSERVICE_NAME_FILE={tmp_path / 'name'}\n"
    settings = load(tmp_path, {"SERVICE_NAME": "of the environment"}, env)
    assert (settings.server.port, settings.service.name) == (1234, "of the environment")


def test_an_empty_name_of_a_file_names_none(tmp_path: Path) -> None:
    settings = load(tmp_path, {"JWT_SECRET_KEY": SECRET, "JWT_SECRET_KEY_FILE": ""})
    assert settings.auth.jwt_secret_key.get_secret_value() == SECRET


def test_both_in_one_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "jwt").write_text(SECRET)
    file = str(tmp_path / "jwt")
    message = problem(tmp_path, {"JWT_SECRET_KEY": SECRET, "JWT_SECRET_KEY_FILE": file})
    assert message == (
        f"[auth] jwt_secret_key (JWT_SECRET_KEY_FILE) = {file!r}: JWT_SECRET_KEY is set too; give one of them"
    )
    assert "is set too" in problem(tmp_path, {}, f"JWT_SECRET_KEY={SECRET}\nJWT_SECRET_KEY_FILE={file}\n")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "can't be read: No such file or directory"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff" * 40, "can't be read: it is not UTF-8"),
        (b"s" * 65_537, "is larger than 65536 bytes"),
    ],
)
def test_a_file_that_can_not_be_used_is_named(tmp_path: Path, content: bytes | None, reason: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    message = problem(tmp_path, {"OPERATOR_TOKEN_FILE": str(file)})
    assert message == f"[operator] token (OPERATOR_TOKEN_FILE) = {str(file)!r}: {reason}"


def test_a_short_secret_out_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "jwt").write_text("hush-hush")
    message = problem(tmp_path, {"JWT_SECRET_KEY_FILE": str(tmp_path / "jwt")})
    assert "9 bytes" in message and "hush" not in message


def test_no_name_can_be_mistaken_for_that_of_a_file() -> None:
    assert not [name for _, _, name in environment_names() if name.endswith("_FILE")]


@pytest.mark.process
def test_service_with_secrets_from_files(tmp_path: Path) -> None:
    (tmp_path / "operator").write_text(f"{SECRET}\n")
    with InlineServer(tmp_path, OPERATOR_TOKEN_FILE=str(tmp_path / "operator")) as server:
        answers = [
            server.http.get(f"{server.url}/dashboard/data", headers={"Authorization": f"Bearer {token}"}).status_code
            for token in (SECRET, SECRET[:-1])
        ]
    assert answers == [200, 401]
