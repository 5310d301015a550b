import base64
import hashlib
import hmac
import json
import os
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE
from threading import Barrier
from typing import Any

import pytest
from joserfc import jwe, jwt
from joserfc.jwk import OctKey, RSAKey

from imgsvc import Settings
from imgsvc.access.jwk import FixedKeys
from imgsvc.access.secrets import drop_drafts, own_secret
from imgsvc.access.tokens import DEFAULT_ORG, MAX_TOKEN_BYTES, Expected, Identity, TokenExpired, TokenInvalid, Tokens

ROOT = Path(__file__).parents[2]
SECRET = "an-old-and-well-kept-secret-of-more-than-sixty-four-bytes-in-all-0123"
TOKENS = Tokens(SECRET, "HS256")
PROCESS = """
import sys
from pathlib import Path
from imgsvc.access.jwk import FixedKeys
from imgsvc.access.secrets import own_secret

print("ready", flush=True)
input()
for folder in sys.argv[1:]:
    print(own_secret(Path(folder), "key"))
"""


def signed(claims: dict[str, Any], algorithm: str = "HS256", secret: str = SECRET, **header: Any) -> str:
    return jwt.encode({"alg": algorithm, **header}, claims, OctKey.import_key(secret), algorithms=[algorithm])


def part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def by_hand(header: object, payload: bytes) -> str:
    content = f"{part(json.dumps(header).encode())}.{part(payload)}"
    return f"{content}.{part(hmac.digest(SECRET.encode(), content.encode(), hashlib.sha256))}"


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_an_issued_token_says_who_it_is_for(algorithm: str) -> None:
    tokens = Tokens(SECRET, algorithm)
    token = tokens.issue("alice", "acme", ["upload", "admin"])
    assert await tokens.verify(token) == Identity("alice", "acme", ("upload", "admin"))
    assert json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))["alg"] == algorithm


@pytest.mark.parametrize("claims", [{"sub": "älice"}, {"sub": "älice", "exp": time.time() + 900.5}])
async def test_a_token_without_an_organisation_belongs_to_the_default_one(claims: dict[str, Any]) -> None:
    assert await TOKENS.verify(signed(claims)) == Identity("älice", DEFAULT_ORG)


@pytest.mark.parametrize("age", [0, 1, 3600])
async def test_an_old_token_is_expired(age: int) -> None:
    with pytest.raises(TokenExpired):
        await TOKENS.verify(TOKENS.issue("alice", ttl_seconds=-age))


async def test_a_token_is_good_until_it_expires() -> None:
    assert (await TOKENS.verify(TOKENS.issue("alice", ttl_seconds=60))).user_id == "alice"


async def test_a_token_that_was_checked_expires_and_begins_with_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, moment = Tokens(SECRET, "HS256", Expected(leeway_seconds=10)), time.time()
    token = signed({"sub": "alice", "nbf": moment - 5, "exp": moment + 60})
    for seconds in (0, 59, 65, 0):
        monkeypatch.setattr(time, "time", lambda now=moment + seconds: now)
        assert (await tokens.verify(token)).user_id == "alice"
    monkeypatch.setattr(time, "time", lambda: moment + 75)
    with pytest.raises(TokenExpired):
        await tokens.verify(token)
    monkeypatch.setattr(time, "time", lambda: moment - 20)
    with pytest.raises(TokenInvalid, match="nbf"):
        await tokens.verify(token)


async def test_a_token_that_was_checked_ends_with_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, token = Tokens(SECRET, "HS256"), TOKENS.issue("alice")
    for _ in range(2):
        assert (await tokens.verify(token)).user_id == "alice"
    monkeypatch.setattr(tokens, "_keys", FixedKeys([OctKey.import_key(SECRET[::-1])]))
    with pytest.raises(TokenInvalid, match="signature"):
        await tokens.verify(token)


async def test_a_token_that_was_checked_is_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, token = Tokens(SECRET, "HS256"), TOKENS.issue("alice", "acme", ["upload"])
    first = await tokens.verify(token)
    monkeypatch.setattr(tokens, "_claims", None)
    assert await tokens.verify(token) == first
    with pytest.raises(TypeError):
        await tokens.verify(TOKENS.issue("bob"))


@pytest.mark.parametrize("seconds", [30, 3600])
async def test_a_token_is_not_valid_before_its_time(seconds: int) -> None:
    assert (await TOKENS.verify(signed({"sub": "alice", "nbf": time.time() - seconds}))).user_id == "alice"
    with pytest.raises(TokenInvalid) as refused:
        await TOKENS.verify(signed({"sub": "alice", "nbf": time.time() + seconds}))
    assert not isinstance(refused.value, TokenExpired)


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": ["alice"]},
        {"sub": {"name": "alice"}},
        {"sub": True},
        {"sub": "al\nice"},
        {"sub": "al\0ice"},
        {"sub": "a" * 256},
        {"sub": "alice", "org_id": ""},
        {"sub": "alice", "org_id": 7},
        {"sub": "alice", "permissions": "admin"},
        {"sub": "alice", "permissions": ["admin", 7]},
    ],
)
async def test_odd_claims_are_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(TokenInvalid):
        await TOKENS.verify(signed(claims))


@pytest.mark.parametrize("claim", ["exp", "nbf"])
@pytest.mark.parametrize(
    "value", ["99999999999", "", None, True, [9e9], {}, float("nan"), float("inf"), float("-inf")], ids=repr
)
async def test_a_time_that_is_not_a_number_is_refused(claim: str, value: object) -> None:
    with pytest.raises(TokenInvalid):
        await TOKENS.verify(signed({"sub": "alice", claim: value}))


@pytest.mark.parametrize("exp", [1e308, 10**400])
async def test_a_far_time_is_valid_or_refused_but_no_crash(exp: float) -> None:
    with suppress(TokenInvalid):
        assert (await TOKENS.verify(signed({"sub": "alice", "exp": exp}))).user_id == "alice"


@pytest.mark.parametrize("secret", [SECRET + "!", SECRET[:-1], SECRET.upper(), "x" * 64])
async def test_another_secret_is_refused(secret: str) -> None:
    with pytest.raises(TokenInvalid):
        await TOKENS.verify(Tokens(secret, "HS256").issue("alice"))


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_changed_token_is_refused(place: int) -> None:
    parts = TOKENS.issue("alice").split(".")
    parts[place] = ("A" if parts[place][0] != "A" else "B") + parts[place][1:]
    with pytest.raises(TokenInvalid):
        await TOKENS.verify(".".join(parts))


@pytest.mark.parametrize("name", ["none", "None", "NONE", "", None, 256, ["HS256"], "hs256", "RS256", "ES256"])
@pytest.mark.parametrize("keeps_signature", [False, True])
async def test_the_tokens_own_algorithm_is_not_believed(name: object, keeps_signature: bool) -> None:
    _, claims, signature = TOKENS.issue("alice").split(".")
    head = part(json.dumps({"alg": name, "typ": "JWT"}).encode())
    with pytest.raises(TokenInvalid):
        await TOKENS.verify(f"{head}.{claims}.{signature if keeps_signature else ''}")


@pytest.mark.parametrize(("configured", "used"), [("HS256", "HS512"), ("HS512", "HS256"), ("HS384", "HS256")])
async def test_the_right_secret_with_another_algorithm_is_refused(configured: str, used: str) -> None:
    assert (await Tokens(SECRET, used).verify(signed({"sub": "alice"}, used))).user_id == "alice"
    with pytest.raises(TokenInvalid):
        await Tokens(SECRET, configured).verify(signed({"sub": "alice"}, used))


async def test_a_key_sent_with_the_token_is_not_used() -> None:
    foreign = "a-foreign-secret-that-has-enough-bytes"
    key = OctKey.import_key(foreign).as_dict(private=True)
    with pytest.raises(TokenInvalid):
        await TOKENS.verify(signed({"sub": "mallory"}, secret=foreign, jwk=key))


async def test_public_key_algorithms_are_refused() -> None:
    token = jwt.encode({"alg": "RS256"}, {"sub": "alice"}, RSAKey.generate_key(2048), algorithms=["RS256"])
    with pytest.raises(TokenInvalid):
        await TOKENS.verify(token)


async def test_an_encrypted_token_is_refused() -> None:
    key = OctKey.import_key(SECRET[:32])
    token = jwe.encrypt_compact({"alg": "dir", "enc": "A128CBC-HS256"}, b'{"sub": "alice"}', key)
    with pytest.raises(TokenInvalid):
        await Tokens(SECRET[:32], "HS256").verify(token)


@pytest.mark.parametrize(
    ("header", "payload"),
    [
        ({"alg": "HS256", "crit": ["moon"], "moon": "full"}, b'{"sub": "alice"}'),
        ({"alg": "HS256", "b64": False, "crit": ["b64"]}, b'{"sub": "alice"}'),
        (["HS256"], b'{"sub": "alice"}'),
        ({}, b'{"sub": "alice"}'),
        ({"alg": "HS256"}, b'["alice"]'),
        ({"alg": "HS256"}, b'"alice"'),
        ({"alg": "HS256"}, b"null"),
        ({"alg": "HS256"}, b"{"),
        ({"alg": "HS256"}, b""),
        ({"alg": "HS256"}, b'{"sub": "\xff"}'),
        ({"alg": "HS256"}, b'{"sub": "\\ud800"}'),
        ({"alg": "HS256"}, b"[" * 5000),
    ],
)
async def test_well_signed_nonsense_is_refused(header: object, payload: bytes) -> None:
    with pytest.raises(TokenInvalid):
        await TOKENS.verify(by_hand(header, payload))


async def test_a_token_signed_by_hand_is_good() -> None:
    assert (await TOKENS.verify(by_hand({"alg": "HS256"}, b'{"sub": "alice"}'))).user_id == "alice"


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "...", "a.b.c", "a.b.c.d.e", "\0", "é.é.é", "\ud800", "=.=.=", "e30.e30.e30", "W10.W10.", "🙂" * 9],
)
async def test_garbage_is_refused(token: str) -> None:
    with pytest.raises(TokenInvalid):
        await TOKENS.verify(token)


async def test_a_huge_token_is_refused_and_a_large_one_is_not() -> None:
    large = TOKENS.issue("alice", permissions=["p" * 12_000])
    huge = TOKENS.issue("alice", permissions=["p" * 12_500])
    assert len(large) <= MAX_TOKEN_BYTES < len(huge)
    assert (await TOKENS.verify(large)).user_id == "alice"
    for token in (huge, "." * 5_000_000):
        with pytest.raises(TokenInvalid):
            await TOKENS.verify(token)


async def test_configured_secret_is_used(tmp_path: Path) -> None:
    settings = Settings(auth={"jwt_secret_key": SECRET}, database={"path": tmp_path / "imgsvc.db"})  # type: ignore[arg-type]
    assert (await TOKENS.verify(Tokens.of(settings).issue("alice"))).user_id == "alice"
    assert list(tmp_path.iterdir()) == []


async def test_own_secret_survives_a_restart(tmp_path: Path) -> None:
    settings = Settings(database={"path": tmp_path / "data" / "imgsvc.db"})  # type: ignore[arg-type]
    token = Tokens.of(settings).issue("alice")
    assert (await Tokens.of(settings).verify(token)).user_id == "alice"
    elsewhere = Settings(database={"path": tmp_path / "other" / "imgsvc.db"})  # type: ignore[arg-type]
    with pytest.raises(TokenInvalid):
        await Tokens.of(elsewhere).verify(token)


@pytest.mark.parametrize("mask", [0o000, 0o022])
def test_own_secret_is_for_its_owner_only(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        secret = own_secret(tmp_path / "data", "key")
    finally:
        os.umask(before)
    assert len(secret) >= 43
    assert stat.S_IMODE((tmp_path / "data" / "key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["key"]
    assert own_secret(tmp_path / "data", "key") == secret


@pytest.mark.parametrize("attempt", range(5))
def test_threads_agree_on_a_secret(tmp_path: Path, attempt: int) -> None:
    start = Barrier(4)

    def first(_: int) -> str:
        start.wait(10)
        return own_secret(tmp_path, "key")

    with ThreadPoolExecutor(4) as pool:
        secrets = set(pool.map(first, range(4)))
    assert secrets == {own_secret(tmp_path, "key")}
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_draft_that_is_taken_for_a_leftover_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a service that starts at that moment, and has the data folder to itself but for this."""
    (tmp_path / f".key.{'0' * 16}").write_text("of a process that was killed")
    link = os.link

    def started_meanwhile(draft: Path, path: Path) -> None:
        monkeypatch.undo()
        drop_drafts(tmp_path)
        link(draft, path)

    monkeypatch.setattr(os, "link", started_meanwhile)
    secret = own_secret(tmp_path, "key")
    assert [path.name for path in tmp_path.iterdir()] == ["key"] and own_secret(tmp_path, "key") == secret


def test_processes_agree_on_a_secret(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(20)]
    command = [sys.executable, "-c", PROCESS, *map(str, folders)]
    processes = [subprocess.Popen(command, cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True) for _ in range(3)]
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=20)[0] for process in processes]
    assert answers[0].split() == [own_secret(folder, "key") for folder in folders]
    assert answers == answers[:1] * 3
