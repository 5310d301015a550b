"""`imgsvc doctor`: what is well, and each thing that a self-hoster gets wrong, made wrong for real."""

import grp
import json
import os
import re
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fixtures import make
from imgsvc import Settings
from imgsvc.cli.doctor import (
    CHECKS,
    conflicts,
    database,
    examine,
    instances,
    libraries,
    limits,
    pillow,
    reading_group,
    secrets,
    workers,
)
from imgsvc.cli.doctor.finding import Finding, well, wrong
from imgsvc.jobs.table.database import MIGRATIONS
from imgsvc.testing import settings_in
from tests.conftest import service
from tests.process.test_commands import imgsvc
from tests.support.doctor import found, worst
from tests.support.memory import FOLDER
from tests.support.processes import run
from tests.support.server_process import InlineServer
from tests.support.speed import seconds

RANDOM = "kJ8s-Qz71mVb0Xw3tRf6YpLhDn2eUcGa"


def test_all_is_well_where_all_is_well(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])}
    answer = run(["doctor"], folder=tmp_path, environ=environ, real="what a fresh process has loaded is examined")
    assert (answer.returncode, answer.stderr) == (0, "")
    lines = answer.stdout.splitlines()
    assert {line[0] for line in lines} == {"✓", "!"} and len(lines) > len(CHECKS)
    assert [line for line in lines if line.startswith("!")] == [
        "! service        no service runs on the data folder → start it: imgsvc serve"
    ]
    assert list(tmp_path.iterdir()) == []


def test_running_service_is_asked_and_left_as_it_was(tmp_path: Path) -> None:
    with InlineServer(tmp_path, JWT_SECRET_KEY="secret" * 10) as server:
        before = sorted(path.name for path in server.folder.rglob("*"))
        examined = imgsvc(server, "doctor", "--json", PUBLIC_URL=server.url)
        again = imgsvc(server, "doctor", "--json", JWT_SECRET_KEY=RANDOM, PUBLIC_URL=f"{server.url}/nowhere")
        assert sorted(path.name for path in server.folder.rglob("*")) == before
    said: list[dict[str, Any]] = json.loads(examined.stdout)
    by_check = {one["check"]: one for one in said}
    assert examined.returncode == 1
    assert [one["check"] for one in said if one["status"] == "wrong"] == ["secrets"]
    assert by_check["secrets"]["said"] == "JWT_SECRET_KEY does not look random"
    assert f"responds at {server.url} and is healthy" in by_check["service"]["said"]
    assert by_check["public url"]["said"] == f"{server.url} answers"
    assert by_check["database"]["said"].startswith("intact, ")
    assert again.returncode == 1
    (astray,) = [one for one in json.loads(again.stdout) if one["status"] == "wrong"]
    assert astray["said"] == f"{server.url}/nowhere answers 404, but not from this service"


def test_address_where_nobody_listens(tmp_path: Path) -> None:
    from imgsvc.cli.doctor import service

    settings = settings_in(tmp_path, service={"public_url": "http://127.0.0.1:1"})
    assert worst(service.public_url, settings).startswith("wrong: http://127.0.0.1:1 does not respond: ")


def test_check_that_hangs_or_breaks_is_a_finding(tmp_path: Path) -> None:
    over = threading.Event()

    def hangs(_settings: Settings) -> Iterator[Finding]:
        over.wait(30)
        yield well("too late")

    def breaks_down(_settings: Settings) -> Iterator[Finding]:
        yield well("so far")
        raise ZeroDivisionError("by nothing")

    began = time.monotonic()
    answers = list(examine(settings_in(tmp_path), (hangs, breaks_down), limit=0.2))
    over.set()
    assert time.monotonic() - began < seconds(10)
    assert [(one.check, one.finding.status) for one in answers] == [
        ("hangs", "wrong"),
        ("breaks down", "well"),
        ("breaks down", "wrong"),
    ]
    assert answers[0].finding.said == "no answer within 0.2 seconds"
    assert answers[2].finding == wrong("the check itself failed: ZeroDivisionError: by nothing", "report this")


class TestPixels:
    def test_built_for_this_processor(self) -> None:
        assert worst(pillow.codecs, Settings()) == "well"
        assert "pillow-simd" in found(pillow.pillow, Settings())[0].said

    @pytest.mark.parametrize(
        ("script", "said"),
        [
            ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "wrong: .* another processor .*every worker"),
            ("raise OSError('no memory')", "wrong: .* can't resize: OSError: no memory"),
            ("print(0.015, 0.006)", "warning: .* is no faster than plain code: resizing in 15.0 ms, 6.0 without"),
            ("print(0.002, 0.006)", "well"),
        ],
    )
    def test_resizing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str) -> None:
        (tmp_path / "resizing.py").write_text(script)
        monkeypatch.setattr(pillow, "RESIZING", tmp_path / "resizing.py")
        assert re.match(said, worst(pillow.pillow, Settings()))

    @pytest.mark.parametrize(
        ("build", "processor", "said"),
        [
            (None, {"avx2"}, "warning: this is Pillow 12.1.1 .* → .* installed over pillow-simd"),
            ("avx2", {"avx2"}, "warning: this is Pillow 12.1.1 .* → .* installed over pillow-simd"),
            ("none", {"sse4_1"}, "warning: this is Pillow 12.1.1 .* asked to be → .* without SIMD=none"),
            ("none", set(), "well"),
        ],
    )
    def test_plain_pillow(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: str | None, processor: set[str], said: str
    ) -> None:
        monkeypatch.setattr("PIL.__version__", "12.1.1")
        monkeypatch.setattr("sys.prefix", str(tmp_path))
        monkeypatch.setattr("imgsvc.imaging.simd.processor_features", lambda: processor)
        if build:
            (tmp_path / "simd").mkdir()
            (tmp_path / "simd" / "build").write_text(build)
        assert re.match(said, worst(pillow.pillow, Settings()))

    def test_codec_that_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_animation(form: str, **_options: object) -> Any:
            raise OSError(f"encoder {form} not available")

        monkeypatch.setattr(pillow, "_round_trip", no_animation)
        assert worst(pillow.codecs, Settings()).startswith("wrong: JPEG: encoder JPEG not available")


class TestLibraries:
    def test_each_is_named_with_its_version(self) -> None:
        (finding,) = found(libraries.libraries, Settings())
        for name in ("libjpeg-turbo", "zlib", "libwebp", "lcms2"):
            assert re.search(rf"{name} \d+\.\d+", finding.said), finding.said

    @pytest.mark.parametrize(
        ("version", "package", "expected"),
        [
            ("2.14", "2.14-2", "warning: .*update liblcms2-2"),
            ("2.14", "2.14-2+deb12u1", "well$"),
            ("2.14", "2.14-2+deb12u2", "well$"),
            ("2.19", None, "well$"),
            ("2.19.1", "2.19.1-1", "well$"),
        ],
    )
    def test_lcms_that_was_not_mended(
        self, monkeypatch: pytest.MonkeyPatch, version: str, package: str | None, expected: str
    ) -> None:
        monkeypatch.setattr("PIL.features.version", lambda _name: version)
        monkeypatch.setattr(libraries, "_package", lambda _names: package)
        assert re.match(expected, worst(libraries.libraries, Settings()))

    @pytest.mark.parametrize("package", [None, "2.16-2"])
    def test_what_can_not_be_told_is_said(self, monkeypatch: pytest.MonkeyPatch, package: str | None) -> None:
        monkeypatch.setattr("PIL.features.version", lambda _name: "2.16")
        monkeypatch.setattr(libraries, "_package", lambda _names: package)
        (finding,) = found(libraries.libraries, Settings())
        assert finding.status == "well" and "unless the distribution fixed it" in finding.said

    def test_no_package_is_named_for_the_libraries_of_a_wheel(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "pillow.libs").mkdir()
        monkeypatch.setattr("PIL.__file__", str(tmp_path / "PIL" / "__init__.py"))
        monkeypatch.setattr(libraries, "_package", lambda _names: "9-1")
        (finding,) = found(libraries.libraries, Settings())
        assert "(9-1)" not in finding.said and "all in Pillow's wheel" in finding.said


class TestCage:
    def test_what_is_in_force_is_said(self) -> None:
        (finding,) = found(workers.cage, Settings())
        assert re.match(r"every picture is decoded in a cage: Landlock \(ABI \d+\), seccomp, limits$", finding.said)

    @pytest.mark.parametrize(
        ("mode", "status"), [("best", "warning: seccomp: "), ("require", "wrong: no worker starts, since ")]
    )
    def test_what_is_missing_is_said_with_its_package(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, status: str
    ) -> None:
        lacking = tmp_path / "lacking.py"
        lacking.write_text(
            "import runpy; from imgsvc.jobs.lanes import seccomp; seccomp.LIBRARY = 'libseccomp-missing.so'; "
            f"runpy.run_path({str(workers.CAGING)!r}, run_name='__main__')"
        )
        monkeypatch.setattr(workers, "CAGING", lacking)
        said = worst(workers.cage, Settings.model_validate({"workers": {"cage": mode}}))
        assert said.startswith(status) and "the library libseccomp-missing.so is missing" in said
        assert re.search(r"in force: Landlock \(ABI \d+\), limits → install libseccomp2, and", said)

    def test_process_that_can_not_try_is_a_finding(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        broken = tmp_path / "broken.py"
        broken.write_text("raise SystemExit('no memory')")
        monkeypatch.setattr(workers, "CAGING", broken)
        said = worst(workers.cage, Settings())
        assert said.startswith("warning: the cage can't be built: no memory; in force: nothing")

    def test_turned_off_is_a_warning(self) -> None:
        said = worst(workers.cage, Settings.model_validate({"workers": {"cage": "off"}}))
        assert said.endswith("→ set [workers] cage to best or require")


def test_memory(data: Path) -> None:
    enough = settings_in(data, workers={"count": 1, "memory_mb": 2048})
    assert worst(limits.memory, enough) == "well"
    assert "must be at least 160" in worst(limits.memory, settings_in(data, workers={"count": 1, "memory_mb": 100}))
    small = settings_in(data, workers={"count": 1, "memory_mb": 200})
    assert "enough for a plain JPEG of up to 5" in worst(limits.memory, small)
    assert worst(limits.memory, settings_in(data, workers={"memory_mb": 10_000_000})).startswith("wrong")


def test_formats_that_the_memory_leaves_out(data: Path) -> None:
    images = {"formats": ["webp", "avif"]}
    for memory_mb, names in ((2048, []), (700, ["original.avif"]), (160, ["original.avif", "large.avif"])):
        settings = settings_in(data, workers={"count": 1, "memory_mb": memory_mb}, images=images)
        found = [one.said for one in limits.memory(settings) if "not enough memory for" in one.said]
        assert found == ([f"not enough memory for {', '.join(names)}"] if names else []), memory_mb


class TestSecrets:
    @pytest.mark.parametrize("secret", ["x" * 40, "changeme" * 5, "ab12" * 9, "my-application-Secret-key-of-2026-!"])
    def test_made_up(self, data: Path, secret: str) -> None:
        settings = settings_in(data, auth={"jwt_secret_key": secret})
        assert worst(secrets.secrets, settings).startswith("wrong: JWT_SECRET_KEY does not look random")
        assert secret not in worst(secrets.secrets, settings)

    def test_one_for_two(self, data: Path) -> None:
        settings = settings_in(data, auth={"jwt_secret_key": RANDOM}, operator={"token": RANDOM})
        assert worst(secrets.secrets, settings).startswith("wrong: OPERATOR_TOKEN is the same as JWT_SECRET_KEY")

    @pytest.mark.parametrize(
        ("name", "mode", "said"),
        [
            ("jwt_secret", 0o600, "well"),
            ("jwt_secret", 0o640, "wrong"),
            ("operator_token", 0o604, "wrong"),
            ("imgsvc.db", 0o644, "warning"),
            (".", 0o755, "wrong"),
        ],
    )
    def test_modes(self, data: Path, name: str, mode: int, said: str) -> None:
        if name != ".":
            (data / name).write_text(RANDOM)
        (data / name).chmod(mode)
        assert worst(secrets.secrets, settings_in(data)).startswith(said)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({}, "well"),
        ({"service": {"public_url": "https://img.example"}, "server": {"trusted_proxies": ["127.0.0.1/32"]}}, "well"),
        ({"service": {"public_url": "https://img.example"}}, "warning: public_url is https, there is no certfile"),
        ({"server": {"host": "0.0.0.0"}}, "warning: it listens on 0.0.0.0, and public_url is empty"),
        (
            {"server": {"host": "0.0.0.0"}, "service": {"public_url": "http://img.example"}},
            "warning: it listens on 0.0.0.0 without TLS",
        ),
        (
            {"server": {"allowed_hosts": ["a.example"]}, "service": {"public_url": "http://b.example:8000"}},
            "wrong: the name of public_url, b.example, is not in allowed_hosts",
        ),
        ({"server": {"trusted_proxies": ["0.0.0.0/0"]}}, "wrong: trusted_proxies contains 0.0.0.0/0"),
        ({"server": {"allowed_hosts": ["*"]}}, "warning: allowed_hosts is '*'"),
        (
            {"operator": {"public": True}, "service": {"public_url": "http://b.example"}},
            "warning: operator.public is true",
        ),
        ({"storage": {"reserve_mb": 0}}, "warning: storage.reserve_mb is 0"),
        ({"images": {"keep_source": "as_is"}}, "warning: images.keep_source is as_is"),
        ({"storage": {"reserve_mb": 5}}, "warning: uploads.max_size_mb is more than storage.reserve_mb"),
    ],
)
def test_settings_that_fight(data: Path, sections: dict[str, Any], said: str) -> None:
    sections = {**sections, "storage": {"reserve_mb": 256, **sections.get("storage", {})}}
    assert worst(conflicts.settings, settings_in(data, **sections)).startswith(said)


class TestDatabase:
    def settings(self, data: Path, version: int = len(MIGRATIONS), rows: int = 10) -> Settings:
        settings = settings_in(data)
        with closing(sqlite3.connect(settings.database.path)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("CREATE TABLE t (x TEXT, y TEXT)")
            db.execute("CREATE INDEX ty ON t (y)")
            db.executemany("INSERT INTO t VALUES (?, ?)", [(str(n) * 50, str(n)) for n in range(rows)])
            db.execute(f"PRAGMA user_version = {version}")
            db.commit()
        return settings

    def test_sound_and_left_as_it_was(self, data: Path) -> None:
        settings = self.settings(data)
        assert found(database.database, settings)[0].said.startswith("intact, ")
        assert sorted(path.name for path in data.iterdir()) == ["imgsvc.db", "storage"]

    def test_other_versions(self, data: Path) -> None:
        assert worst(database.database, self.settings(data, 99)).startswith("wrong: its schema has version 99")
        settings_in(data).database.path.unlink()
        older = worst(database.database, self.settings(data, 1))
        assert older.startswith(f"warning: the next start will migrate its schema from version 1 to {len(MIGRATIONS)}")

    def test_damage(self, data: Path) -> None:
        settings = self.settings(data, rows=1000)
        with settings.database.path.open("r+b") as stream:
            stream.seek(3 * 4096)
            stream.write(b"\xff" * 4096)
        assert worst(database.database, settings).startswith("wrong: it is damaged: ")
        settings.database.path.write_bytes(b"no database at all" * 100)
        assert worst(database.database, settings).startswith("wrong: ")

    def test_large_one_is_given_up_in_time(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = self.settings(data, rows=5000)
        monkeypatch.setattr(database, "CHECK_SECONDS", 0.0)
        monkeypatch.setattr(database, "STEPS", 10)
        assert "not completely checked within 0 seconds" in worst(database.database, settings)


async def test_folders_that_do_not_belong_together(tmp_path: Path) -> None:
    async with service(tmp_path / "data") as s:
        await s.completed(make.jpeg(64, 48))
        assert worst(instances.instance, s.settings) == "well"
    assert worst(instances.instance, s.settings) == "well"
    marker = s.settings.storage.path / ".instance"
    own = marker.read_text()
    marker.unlink()
    assert "mount its disk" in found(instances.instance, s.settings)[0].advice
    marker.write_text("00000000-0000-4000-8000-000000000000\n")
    assert "another service" in found(instances.instance, s.settings)[0].said
    marker.write_text(own)
    for path in s.settings.data.glob("imgsvc.db*"):
        path.unlink()
    assert "storage adopt" in found(instances.instance, s.settings)[0].said
    assert worst(instances.instance, settings_in(tmp_path / "new")) == "well"


def test_group_that_reads_variants_must_get_to_them(tmp_path: Path) -> None:
    name = grp.getgrgid(os.getegid()).gr_name
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)

    def said(group: str, folder: Path) -> list[str]:
        settings = settings_in(tmp_path, storage={"group": group, "path": folder / "pictures"})
        return [f"{one.status}: {one.said}" for one in found(reading_group.reading_group, settings)]

    assert said("", closed) == []
    assert "no such group" in said("no-such-group", closed)[0]
    (line,) = said(name, closed)
    assert line.startswith("wrong") and str(closed) in line
    for folder in (closed, *tmp_path.parents):
        temporary = {Path(tempfile.gettempdir()), FOLDER}.intersection(folder.parents)
        if folder.stat().st_uid == os.geteuid() and temporary:
            folder.chmod(folder.stat().st_mode | 0o011)
    tmp_path.chmod(0o711)
    assert said(name, closed)[0].startswith("well")
