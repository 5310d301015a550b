"""Tokens of an issuer whose public key is a PEM file, secrets that rotate, and settings that can't be meant."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import ECKey, OKPKey, RSAKey

from imgsvc import Settings
from imgsvc.access.tokens import NotOurs, TokenInvalid, Tokens
from imgsvc.settings import SettingsError
from tests.support import issuer
from tests.support.issuer import ALGORITHMS, key, pem
from tests.support.processes import run

OLD, NEW, OTHER = ("an-old-secret-" * 3, "a-new-secret-" * 3, "another-secret-" * 3)


def settings(tmp_path: Path, **auth: Any) -> Settings:
    return Settings(auth=auth, database={"path": tmp_path / "imgsvc.db"})  # type: ignore[arg-type]


def of_file(tmp_path: Path, algorithm: str, data: bytes) -> Tokens:
    file = tmp_path / "issuer.pem"
    file.write_bytes(data)
    return Tokens.of(settings(tmp_path, jwt_algorithm=algorithm, jwt_public_key=str(file)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_key_in_a_file(tmp_path: Path, algorithm: str) -> None:
    tokens = of_file(tmp_path, algorithm, b"of our issuer\n" + pem(key(algorithm)) + b"\n")
    for kid in ("first", "whatever", None):
        assert (await tokens.verify(issuer.token(key(algorithm), algorithm, kid=kid))).user_id == "alice"
    with pytest.raises(TokenInvalid):
        await tokens.verify(issuer.token(key(algorithm, "another"), algorithm))
    assert not tokens.ours
    with pytest.raises(NotOurs):
        tokens.issue("alice")
    assert [file.name for file in tmp_path.iterdir()] == ["issuer.pem"]  # no secret was made


@pytest.mark.parametrize("configured", ALGORITHMS)
async def test_the_public_key_is_no_secret(tmp_path: Path, configured: str) -> None:
    """The old attack: sign with HMAC, with the public key as the secret."""
    public = pem(key(configured))
    tokens = of_file(tmp_path, configured, public)
    for secret in (public, public.strip(), public + b"\n", b"\n".join(public.splitlines()[1:-1])):
        for algorithm in ("HS256", "HS384", "HS512"):
            for claimed in (algorithm, configured):
                with pytest.raises(TokenInvalid):
                    await tokens.verify(issuer.by_hmac(secret, algorithm, {"sub": "alice"}, alg=claimed))


@pytest.mark.parametrize("configured", ["RS256", "PS256"])
@pytest.mark.parametrize("used", ["RS256", "RS384", "RS512", "PS256", "PS384"])
async def test_the_same_key_with_another_algorithm(tmp_path: Path, configured: str, used: str) -> None:
    tokens, text = of_file(tmp_path, configured, pem(key("RS256"))), issuer.token(key("RS256"), used)
    if used == configured:
        assert (await tokens.verify(text)).user_id == "alice"
    else:
        with pytest.raises(TokenInvalid):
            await tokens.verify(text)


def small() -> bytes:
    public = rsa.generate_private_key(65537, 1024).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private() -> bytes:
    one = key("RS256")
    assert isinstance(one, RSAKey)
    return one.as_pem(private=True)


GOOD = pem(key("RS256"))
FILES = {
    "empty": (b"", "RS256", "must contain one public key in PEM"),
    "no PEM": (b"ssh-rsa AAAAB3NzaC1yc2E me@here\n", "RS256", "must contain one public key in PEM"),
    "damaged": (GOOD.replace(b"A", b"B"), "RS256", "must contain one public key in PEM"),
    "cut off": (GOOD[:-30], "RS256", "must contain one public key in PEM"),
    "two": (GOOD + pem(key("RS256", "another")), "RS256", "must contain one public key in PEM"),
    "a certificate": (GOOD.replace(b"PUBLIC KEY", b"CERTIFICATE"), "RS256", "must contain one public key in PEM"),
    "binary": (bytes(range(256)) * 10, "RS256", "must contain one public key in PEM"),
    "private": (private(), "RS256", "contains a private key"),
    "a small one": (small(), "RS256", "has 1024 bits; 2048 to 8192 are accepted"),
    "EC for RS256": (pem(key("ES256")), "RS256", "is no usable key of the kind RSA, which RS256 needs"),
    "RSA for ES256": (GOOD, "ES256", "is no usable key of the kind EC, which ES256 needs"),
    "RSA for EdDSA": (GOOD, "EdDSA", "is no usable key of the kind OKP, which EdDSA needs"),
    "P-384 for ES256": (pem(key("ES384")), "ES256", "is on the curve P-384; ES256 needs P-256"),
    "P-521 for ES384": (pem(ECKey.generate_key("P-521")), "ES384", "is on the curve P-521; ES384 needs P-384"),
    "X25519 for EdDSA": (pem(OKPKey.generate_key("X25519")), "EdDSA", "is on the curve X25519; EdDSA needs Ed25519"),
}


@pytest.mark.parametrize("what", FILES)
def test_a_file_that_can_not_be_meant(tmp_path: Path, what: str) -> None:
    data, algorithm, reason = FILES[what]
    with pytest.raises(SettingsError) as error:
        of_file(tmp_path, algorithm, data)
    start = f"[auth] jwt_public_key (IMGSVC_AUTH_JWT_PUBLIC_KEY) = {str(tmp_path / 'issuer.pem')!r}: "
    assert str(error.value).startswith(start + reason)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "missing", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(SettingsError, match=rf"^\[auth\] jwt_public_key .*: can't be read: {reason}"):
            Tokens.of(settings(tmp_path, jwt_algorithm="RS256", jwt_public_key=str(path)))


URL = "https://issuer.example/keys?p=users"
COMBINATIONS: list[tuple[dict[str, str], str]] = [
    ({"JWT_ALGORITHM": "RS256"}, "[auth]: jwt_algorithm (JWT_ALGORITHM) = 'RS256' needs jwt_public_key "),
    ({"JWT_ALGORITHM": "EdDSA", "JWT_SECRET_KEY": NEW}, "[auth]: jwt_algorithm (JWT_ALGORITHM) = 'EdDSA' needs jwt_"),
    (
        {"JWT_ALGORITHM": "ES256", "IMGSVC_AUTH_JWT_PUBLIC_KEY": "x.pem", "AUTH_API_JWKS_URL": URL},
        "[auth]: jwt_public_key and jwks_url exclude each other",
    ),
    ({"IMGSVC_AUTH_JWT_PUBLIC_KEY": "x.pem"}, "[auth]: jwt_algorithm (JWT_ALGORITHM) = 'HS256' uses a secret: jwt_pub"),
    ({"AUTH_API_JWKS_URL": URL}, "[auth]: jwt_algorithm (JWT_ALGORITHM) = 'HS256' uses a secret: jwks_url needs"),
    ({"AUTH_PERMISSIONS": "remote"}, "[auth]: permissions (AUTH_PERMISSIONS) = 'remote' needs api_url (AUTH_API_URL)"),
    ({"AUTH_PERMISSIONS": "all"}, "[auth] permissions (AUTH_PERMISSIONS) = 'all': "),
    ({"JWT_ALGORITHM": "HS1"}, "[auth] jwt_algorithm (JWT_ALGORITHM) = 'HS1': "),
    ({"IMGSVC_AUTH_LEEWAY_SECONDS": "-1"}, "[auth] leeway_seconds (IMGSVC_AUTH_LEEWAY_SECONDS) = '-1': "),
    ({"IMGSVC_AUTH_LEEWAY_SECONDS": "601"}, "[auth] leeway_seconds (IMGSVC_AUTH_LEEWAY_SECONDS) = '601': "),
    ({"IMGSVC_AUTH_JWT_SECRET_KEY_PREVIOUS": "hush"}, "[auth] jwt_secret_key_previous (IMGSVC_AUTH_JWT_SECRET_KEY_PRE"),
    ({"JWT_SECRET_KEY": GOOD.decode()}, "[auth] jwt_secret_key (JWT_SECRET_KEY) = (hidden): is a PEM key"),
    *(
        ({"JWT_ALGORITHM": "RS256", "AUTH_API_JWKS_URL": url}, f"[auth] jwks_url (AUTH_API_JWKS_URL) = {url!r}: must ")
        for url in (
            "issuer.example/keys",
            "http://issuer.example/keys",
            "http://127.0.0.1.issuer.example/keys",
            "file:///etc/keys",
            "https:///keys",
            "https://issuer example/keys",
        )
    ),
    *(
        ({"AUTH_API_URL": url}, f"[auth] api_url (AUTH_API_URL) = {url!r}: ")
        for url in ("auth.example", "https://auth.example?x=1", "https://auth.example:port")
    ),
    *(
        ({"AUTH_API_JWKS_URL": url}, "[auth] jwks_url (AUTH_API_JWKS_URL) = (hidden): must not hold a user name or ")
        for url in ("http://127.0.0.1@issuer.example/keys", "https://me:hush@issuer.example/keys")
    ),
    ({"AUTH_API_URL": "me:hush@auth.example"}, "[auth] api_url (AUTH_API_URL) = (hidden): must be empty or an "),
    ({"REDIS_URL": "me:hush@redis.example"}, "[redis] url (REDIS_URL) = (hidden): "),
    ({"REDIS_URL": "redis.example"}, "[redis] url (REDIS_URL) = 'redis.example': "),
]


@pytest.mark.parametrize(("environ", "reason"), COMBINATIONS)
def test_settings_that_can_not_be_meant(tmp_path: Path, environ: dict[str, str], reason: str) -> None:
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(SettingsError) as error:
        Settings.load(tmp_path / "config.toml", environ)
    assert str(error.value).startswith(reason)
    assert "\n" not in str(error.value) and NEW not in str(error.value)


@pytest.mark.parametrize("host", ["https://issuer.example", "http://localhost:9", "http://[::1]:9", "http://127.0.0.1"])
def test_addresses_of_key_sets(host: str) -> None:
    auth = {"jwt_algorithm": "RS256", "jwks_url": f"{host}/keys?p=x"}
    assert Settings(auth=auth).auth.jwks_url == f"{host}/keys?p=x"  # type: ignore[arg-type]


async def test_a_secret_that_rotates(tmp_path: Path) -> None:
    made = {secret: Tokens(secret, "HS256").issue("alice") for secret in (OLD, NEW, OTHER)}
    tokens = Tokens.of(settings(tmp_path, jwt_secret_key=NEW, jwt_secret_key_previous=OLD))
    for secret in (OLD, NEW):
        assert (await tokens.verify(made[secret])).user_id == "alice"
    with pytest.raises(TokenInvalid):
        await tokens.verify(made[OTHER])
    with pytest.raises(TokenInvalid):
        await Tokens(OLD, "HS256").verify(tokens.issue("alice"))  # nothing new is made with the old one
    after = Tokens.of(settings(tmp_path, jwt_secret_key=NEW))
    with pytest.raises(TokenInvalid):
        await after.verify(made[OLD])


async def test_tokens_of_ours_carry_what_we_ask_for(tmp_path: Path) -> None:
    tokens = Tokens.of(settings(tmp_path, jwt_secret_key=NEW, issuer="https://us.example", audience="images"))
    assert (await tokens.verify(tokens.issue("alice"))).user_id == "alice"
    with pytest.raises(TokenInvalid):
        await tokens.verify(Tokens(NEW, "HS256").issue("alice"))


def imgsvc(tmp_path: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2]), **environ}
    return run(arguments, folder=tmp_path, environ=environ)


def test_commands_where_the_keys_are_not_ours(tmp_path: Path) -> None:
    file = tmp_path / "issuer.pem"
    file.write_bytes(GOOD)
    made = imgsvc(tmp_path, "token", "--sub", "me", JWT_ALGORITHM="RS256", IMGSVC_AUTH_JWT_PUBLIC_KEY=str(file))
    assert (made.returncode, made.stdout) == (1, "")
    assert made.stderr == "imgsvc: tokens are made by your issuer: RS256 has no secret here\n"
    file.write_bytes(b"")
    for command in (["token", "--sub", "me"], ["serve", "--port", "0"]):
        wrong = imgsvc(tmp_path, *command, JWT_ALGORITHM="RS256", IMGSVC_AUTH_JWT_PUBLIC_KEY=str(file))
        assert (wrong.returncode, wrong.stdout) == (2, "")
        told = [line for line in wrong.stderr.splitlines() if line.startswith("imgsvc: ")]
        assert told == [
            f"imgsvc: [auth] jwt_public_key (IMGSVC_AUTH_JWT_PUBLIC_KEY) = {str(file)!r}: {FILES['empty'][2]}"
            " (-----BEGIN PUBLIC KEY-----)"
        ]
        assert "Traceback" not in wrong.stderr


async def test_a_command_makes_a_token_with_all_that_is_asked(tmp_path: Path) -> None:
    environ = {"JWT_SECRET_KEY": NEW, "AUTH_API_ISSUER_URL": "https://us.example", "AUTH_API_AUDIENCE": "images"}
    made = imgsvc(tmp_path, "token", "--sub", "me", "--permission", "image:upload", **environ)
    assert (made.returncode, made.stderr) == (0, "")
    tokens = Tokens.of(settings(tmp_path, jwt_secret_key=NEW, issuer="https://us.example", audience="images"))
    assert (await tokens.verify(made.stdout.strip())).permissions == ("image:upload",)
