"""Signatures of URLs: good for what they were made for and as long, and for nothing else."""

import base64
import hashlib
import hmac
import stat
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from imgsvc.access.signing import KEY_FILE, STEP_SECONDS, SignatureExpired, SignatureInvalid, Signatures, canonical
from imgsvc.settings import SettingsError
from imgsvc.settings.jobs import VARIANT_NAME
from imgsvc.testing import settings_in

KEY, OLDER, OTHER = (f"{name} key of these tests, forty characters.." for name in ("The", "An older", "A foreign"))
NOW = 1_800_000_000.25
PATH = "/storage/team/a/processed/medium/9a41d1de-52c3-4c53-8bb5-1f0a7f6f0f9e_medium.webp"
ALPHABET = string.ascii_letters + string.digits + "-_"
many = settings(deadline=None, database=None, max_examples=200)

paths = st.text(max_size=60)
sizes = st.just("") | st.from_regex(VARIANT_NAME, fullmatch=True).filter(lambda text: not text.endswith("\n"))
moments = st.floats(0, 4e9)
lifetimes = st.integers(1, 604_800)


def signatures(now: float = NOW, seconds: int = 3600, key: str = KEY, older: tuple[str, ...] = ()) -> Signatures:
    return Signatures(key, seconds, older, clock=lambda: now)


def parts(query: str) -> tuple[str, str]:
    """(expires, signature)"""
    expires, signature = query.split("&")
    return expires.removeprefix("expires="), signature.removeprefix("signature=")


def refused(checked: Signatures, *given: str) -> None:
    with pytest.raises(SignatureInvalid):
        checked.seconds_left(*given)


@many
@given(paths, sizes, moments, lifetimes, st.floats(0, 1))
def test_signed_is_accepted_until_it_expires_and_never_after(
    path: str, size: str, now: float, seconds: int, part: float
) -> None:
    expires, signature = parts(signatures(now, seconds).query(path, size))
    step = min(seconds, STEP_SECONDS)
    assert int(expires) % step == 0
    assert now + seconds <= int(expires) <= now + seconds + step
    within = now + (int(expires) - now) * part
    if within < int(expires):
        left = signatures(within).seconds_left(path, size, expires, signature)
        assert 0 <= left <= int(expires) - within <= seconds + step
    for after in (int(expires), int(expires) + 0.001, int(expires) + seconds, 1e12):
        with pytest.raises(SignatureExpired):
            signatures(after).seconds_left(path, size, expires, signature)


@many
@given(st.tuples(paths, sizes, st.integers(0, 10**12)), st.tuples(paths, sizes, st.integers(0, 10**12)))
def test_canonical_forms_are_never_shared(one: tuple[str, str, int], other: tuple[str, str, int]) -> None:
    assert (canonical(*one) == canonical(*other)) == (one == other)


@many
@given(sizes, sizes, st.text("\n12a/", max_size=12), st.text("\n12a/", max_size=12))
def test_canonical_forms_of_paths_that_look_like_lines(size: str, other: str, path: str, second: str) -> None:
    same = (path, size) == (second, other)
    assert (canonical(path, size, 1) == canonical(second, other, 1)) == same


@many
@given(st.data())
def test_any_changed_character_is_refused(data: st.DataObject) -> None:
    given = [PATH, "medium", *parts(signatures().query(PATH, "medium"))]
    changed = list(given)
    place = data.draw(st.integers(0, 3))
    text = given[place]
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 2))
    put = data.draw(st.text(max_size=2) | st.sampled_from([*ALPHABET, "/", "=", "%2e", "../", "\n", "\0", " ", "+"]))
    changed[place] = text[:at] + put + text[at + cut :]
    assume(changed != given)
    refused(signatures(), *changed)


@pytest.mark.parametrize(
    "path",
    [
        PATH.upper(),
        PATH.replace("_medium", "_large"),
        PATH.replace("team", "Team"),
        PATH.replace("team", "t\u00e9am"),
        PATH.replace("/team", "//team"),
        PATH.replace("/team/", "/./team/"),
        PATH.replace("/team/", "/x/../team/"),
        PATH.replace(".webp", "%2ewebp"),
        PATH.replace("/", "%2F"),
        PATH + "/",
        PATH + "\n",
        PATH + "\0",
        PATH + "?",
        PATH[1:],
        "/prefix" + PATH,
        "",
    ],
)
def test_another_path_is_refused(path: str) -> None:
    refused(signatures(), path, "", *parts(signatures().query(PATH)))


def test_forms_of_the_same_text_in_unicode_are_different_paths() -> None:
    composed, decomposed = "/storage/\u00e9", "/storage/e\u0301"
    refused(signatures(), decomposed, "", *parts(signatures().query(composed)))
    pair, one = "/storage/\ud83d\ude00", "/storage/\U0001f600"
    refused(signatures(), pair, "", *parts(signatures().query(one)))
    refused(signatures(), "/storage/\ud83d", "", *parts(signatures().query("/storage/?")))


def test_signature_has_one_form_only() -> None:
    """Of the last character two bits mean nothing: decoded before they are compared, four would be the same."""
    expires, signature = parts(signatures().query(PATH))
    accepted = []
    for last in ALPHABET:
        try:
            signatures().seconds_left(PATH, "", expires, signature[:-1] + last)
        except SignatureInvalid:
            continue
        accepted.append(last)
    assert accepted == [signature[-1]]
    for other in (signature + "=", signature[:-1], signature.swapcase(), "", "a" * 43, "\u00e9" * 43, signature * 2):
        refused(signatures(), PATH, "", expires, other)


@pytest.mark.parametrize("form", ["{}.0", "0{}", "+{}", " {}", "{} ", "{}\n", "-{}", "{}e0", "1_{}", "\u0661{}", ""])
def test_expiry_has_one_form_only(form: str) -> None:
    expires, signature = parts(signatures().query(PATH))
    refused(signatures(), PATH, "", form.format(expires), signature)


@pytest.mark.parametrize("expires", ["1", "9" * 12, "9" * 13, "9" * 5000])
def test_moved_expiry_is_invalid_and_not_expired(expires: str) -> None:
    """Only a URL with a valid signature learns that it has expired."""
    refused(signatures(), PATH, "", expires, parts(signatures().query(PATH))[1])


def test_another_key_is_refused_and_an_older_one_is_verified_with_only() -> None:
    of_older = parts(signatures(key=OLDER).query(PATH))
    refused(signatures(), PATH, "", *of_older)
    refused(signatures(key=OTHER), PATH, "", *of_older)
    rotating = signatures(older=(OLDER,))
    assert rotating.seconds_left(PATH, "", *of_older) > 3599
    assert rotating.query(PATH) == signatures().query(PATH) != signatures(key=OLDER).query(PATH)


def test_clock_that_is_set_back_or_on() -> None:
    given = (PATH, "", *parts(signatures().query(PATH)))
    assert signatures(NOW - 7200).seconds_left(*given) >= 3600 + 7200  # longer, by as much as the clock was set back
    with pytest.raises(SignatureExpired):
        signatures(NOW + 7200).seconds_left(*given)


def test_same_url_for_a_minute() -> None:
    begin = NOW // STEP_SECONDS * STEP_SECONDS
    within = {signatures(begin + second).query(PATH) for second in (0.5, 1, 30, 59.9, 60)}
    assert len(within) == 1
    assert signatures(begin + 60.1).query(PATH) not in within
    assert signatures(begin + 1, seconds=5).query(PATH) != signatures(begin + 6.1, seconds=5).query(PATH)


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def compare_digest(one: Any, other: Any) -> bool:
        asked.append(original(one, other))
        return asked[-1]

    original = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", compare_digest)
    given = (PATH, "", *parts(signatures().query(PATH)))
    rotating = signatures(older=(OLDER, OTHER))
    rotating.seconds_left(*given)
    assert asked == [True, False, False]
    refused(rotating, *given[:3], "a" * 43)
    assert asked[3:] == [False, False, False]


def test_it_is_what_the_module_says() -> None:
    """So that an application that shares the key can sign for itself."""
    expires, signature = parts(signatures().query(PATH, "large"))
    text = f"imgsvc url 1\n{expires}\nlarge\n{PATH}"
    expected = base64.urlsafe_b64encode(hmac.new(KEY.encode(), text.encode(), hashlib.sha256).digest())
    assert signature == expected.rstrip(b"=").decode()


def test_key_is_the_configured_one_or_made_for_the_owner_only(tmp_path: Path) -> None:
    made = Signatures.of(settings_in(tmp_path))
    file = tmp_path / KEY_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    own = file.read_text().strip()
    query = parts(made.query(PATH))
    assert Signatures(own, 1).seconds_left(PATH, "", *query)
    set_to = {"url_signing_key": KEY, "signed_url_seconds": 10}
    configured = Signatures.of(settings_in(tmp_path, storage=set_to))
    refused(configured, PATH, "", *query)
    rotating = Signatures.of(settings_in(tmp_path, storage={**set_to, "url_signing_key_previous": own}))
    assert rotating.seconds_left(PATH, "", *query)
    assert Signatures(KEY, 1).seconds_left(PATH, "", *parts(rotating.query(PATH))) <= 20
    file.write_text("short")
    with pytest.raises(SettingsError, match="at least 32"):
        Signatures.of(settings_in(tmp_path))


@pytest.mark.parametrize("name", ["url_signing_key", "url_signing_key_previous"])
def test_short_key_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="at least 32"):
        settings_in(tmp_path, storage={name: "hush"})


@pytest.mark.parametrize("seconds", [0, -1, 604_801, 1.5])
def test_lifetime_is_bounded(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(ValueError, match="signed_url_seconds"):
        settings_in(tmp_path, storage={"signed_url_seconds": seconds})
