import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from imgsvc import Settings
from imgsvc.settings import SettingsError, environment_names, ignored_service_links
from imgsvc.settings.fields import MEGABYTE

JPEG, PNG, WEBP = "image/jpeg", "image/png", "image/webp"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(folder: Path, environ: Mapping[str, str] | None = None, toml: str = "", env: str = "") -> Settings:
    (folder / "my.toml").write_text(toml)
    (folder / ".env").write_text(env)
    return Settings.load(folder / "my.toml", environ or {})


def problem(folder: Path, environ: Mapping[str, str] | None = None, toml: str = "") -> str:
    with pytest.raises(SettingsError) as raised:
        load(folder, environ, toml)
    message = str(raised.value)
    assert message == " ".join(message.splitlines())
    return message


def test_no_file_at_all_gives_the_defaults(folder: Path) -> None:
    assert Settings.load(environ={}) == Settings()


def test_config_in_the_working_folder_is_found(folder: Path) -> None:
    (folder / "config.toml").write_text("[server]\nport = 1234\n")
    assert Settings.load(environ={}).server.port == 1234


def test_a_named_file_that_is_missing_is_an_error(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"--config .*absent\.toml: there is no such file"):
        Settings.load(folder / "absent.toml", {})


def test_the_process_environment_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_NAME", "pictures")
    assert Settings.load().service.name == "pictures"


@pytest.mark.parametrize(
    ("toml", "env", "environ", "name"),
    [
        ("file", None, None, "file"),
        (None, "dotenv", None, "dotenv"),
        (None, None, "environment", "environment"),
        ("file", "dotenv", None, "dotenv"),
        ("file", None, "environment", "environment"),
        (None, "dotenv", "environment", "environment"),
        ("file", "dotenv", "environment", "environment"),
    ],
)
def test_a_later_source_overrides(
    folder: Path, toml: str | None, env: str | None, environ: str | None, name: str
) -> None:
    settings = load(
        folder,
        {"SERVICE_NAME": environ} if environ else {},
        f'[service]\nname = "{toml}"\nenvironment = "kept"' if toml else "",
        f"SERVICE_NAME={env}\n" if env else "",
    )
    assert settings.service.name == name
    assert settings.service.environment == ("kept" if toml else "production")


def test_the_env_file_is_the_one_beside_the_config(folder: Path) -> None:
    (folder / "etc").mkdir()
    (folder / ".env").write_text("SERVICE_NAME=wrong\n")
    (folder / "etc" / ".env").write_text("SERVICE_NAME='right'\nexport LOG_LEVEL=debug\n")
    (folder / "etc" / "config.toml").write_text("")
    settings = Settings.load(folder / "etc" / "config.toml", {})
    assert (settings.service.name, settings.log.level) == ("right", "DEBUG")


def test_every_setting_has_its_own_environment_name() -> None:
    names = [name for _, _, name in environment_names()]
    assert len(names) == len(set(names)) > 30
    assert {"JWT_SECRET_KEY", "PUBLIC_URL", "IMAGE_SIZES", "IMGSVC_SERVER_PORT"} < set(names)


@pytest.mark.parametrize(
    "text", ['{"thumbnail": 150, "medium": 600}', "thumbnail=150,medium=600", " medium: 600 , thumbnail: 150, "]
)
def test_image_sizes(folder: Path, text: str) -> None:
    settings = load(folder, {"IMAGE_SIZES": text})
    assert settings.images.sizes == {"thumbnail": 150, "medium": 600}
    assert [variant.name for variant in settings.images.recipe.variants] == ["medium", "thumbnail"]


@pytest.mark.parametrize("text", [f'["{PNG}", "{JPEG}"]', f"{PNG},{JPEG}", f" {PNG} , {JPEG} ,"])
def test_allowed_mime_types(folder: Path, text: str) -> None:
    assert load(folder, {"ALLOWED_MIME_TYPES": text}).uploads.allowed_mime_types == (PNG, JPEG)


def test_quality_and_effort_by_size(folder: Path) -> None:
    environ = {
        "IMAGE_SIZES": "a=10,b=20",
        "WEBP_QUALITY": "70",
        "IMGSVC_IMAGES_WEBP_QUALITY_BY_SIZE": "a=60",
        "IMGSVC_IMAGES_WEBP_EFFORT_BY_SIZE": '{"b": 6}',
    }
    variants = load(folder, environ).images.recipe.variants
    assert [(one.name, one.quality, one.effort) for one in variants] == [("b", 70, 6), ("a", 60, 4)]


@pytest.mark.parametrize(
    ("name", "text", "section", "field", "expected"),
    [
        ("MAX_UPLOAD_SIZE_MB", "0.5", "uploads", "max_bytes", MEGABYTE // 2),
        ("DATABASE_PATH", "/var/x/y.db", "database", "path", Path("/var/x/y.db")),
        ("LOG_LEVEL", "warning", "log", "level", "WARNING"),
        ("LOG_JSON", "Yes", "log", "json_lines", "true"),
        ("LOG_JSON", "0", "log", "json_lines", "false"),
        ("IMGSVC_SERVER_HTTP2", "false", "server", "http2", False),
        ("PUBLIC_URL", "", "service", "public_url", ""),
        ("PUBLIC_URL", "https://img.example.org/", "service", "public_url", "https://img.example.org"),
        ("PUBLIC_URL", "http://localhost:8000/i//", "service", "public_url", "http://localhost:8000/i"),
    ],
)
def test_a_value_is_understood(folder: Path, name: str, text: str, section: str, field: str, expected: object) -> None:
    assert getattr(getattr(load(folder, {name: text}), section), field) == expected


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://:p4ssw0rd@a:26379/0",
        "redis-sentinel://a:26379",
        "sentinel://a:26379",
        "redis://a:6379,b:6379",
        "redis+cluster://a:6379",
        "valkey-cluster://a:6379",
    ],
)
def test_sentinel_and_cluster_are_refused_by_name(folder: Path, url: str) -> None:
    message = problem(folder, {"REDIS_URL": url})
    assert "Sentinel and Cluster are not supported, name the primary" in message and "p4ssw0rd" not in message


@pytest.mark.parametrize("url", ["valkey://cache:6379/0", "valkeys://:a,b@cache", "unix:///run/a,b"])
def test_valkey_and_commas_elsewhere_are_taken(folder: Path, url: str) -> None:
    assert load(folder, {"REDIS_URL": url}).redis.url.get_secret_value() == url


def test_address_of_redis_is_a_secret(folder: Path) -> None:
    """It may hold a password."""
    message = problem(folder, {"REDIS_URL": "http://:p4ssw0rd@cache"})
    assert message.startswith("[redis] url (REDIS_URL) = (hidden): must be empty or begin with redis://")
    assert "p4ssw0rd" not in message
    settings = load(folder, {"REDIS_URL": "rediss://:p4ssw0rd@cache:6380/2"})
    assert "p4ssw0rd" not in repr(settings)


PUBLIC_URLS = [
    "img.example.org",
    "//x",
    "ftp://x",
    "http://",
    "https:///x",
    "https://x?y=1",
    "https://x#y",
    "http://a b",
]
BAD = [
    *(("PUBLIC_URL", url, "[service] public_url") for url in PUBLIC_URLS),
    ("PUBLIC_URL", "https://x/\ny", "[service] public_url"),
    ("PUBLIC_URL", "javascript:alert(1)", "[service] public_url"),
    ("IMGSVC_SERVER_PORT", "70000", "[server] port"),
    ("IMGSVC_SERVER_PORT", "-1", "[server] port"),
    ("IMGSVC_SERVER_PORT", "http", "[server] port"),
    ("IMGSVC_SERVER_HTTP2", "perhaps", "[server] http2"),
    ("IMGSVC_SERVER_MAX_HEADER_KB", "0", "[server] max_header_kb"),
    ("IMGSVC_SERVER_GRACEFUL_SECONDS", "0", "[server] graceful_seconds"),
    ("STORAGE_BACKEND", "floppy", "[storage] backend"),
    ("AWS_S3_BUCKET_NAME", "a/b", "[s3] bucket"),
    ("AWS_REGION", "", "[s3] region"),
    ("AWS_ENDPOINT_URL", "minio:9000", "[s3] endpoint_url"),
    ("IMGSVC_S3_ADDRESSING", "both", "[s3] addressing"),
    ("IMGSVC_S3_PRESIGNED_SECONDS", "0", "[s3] presigned_seconds"),
    ("IMGSVC_S3_PRESIGNED_SECONDS", "604801", "[s3] presigned_seconds"),
    ("IMGSVC_S3_CONNECTIONS", "0", "[s3] connections"),
    ("IMGSVC_S3_ATTEMPTS", "0", "[s3] attempts"),
    ("JWT_ALGORITHM", "none", "[auth] jwt_algorithm"),
    ("MAX_UPLOAD_SIZE_MB", "0", "[uploads] max_size_mb"),
    ("MAX_UPLOAD_SIZE_MB", "nan", "[uploads] max_size_mb"),
    ("MAX_UPLOAD_SIZE_MB", "inf", "[uploads] max_size_mb"),
    ("MAX_UPLOAD_SIZE_MB", "", "[uploads] max_size_mb"),
    ("ALLOWED_MIME_TYPES", "image/bmp", "[uploads] allowed_mime_types.0"),
    ("ALLOWED_MIME_TYPES", '["image/png"', "[uploads] allowed_mime_types"),
    ("IMAGE_SIZES", "{", "[images] sizes"),
    ("IMAGE_SIZES", "{}", "[images] sizes"),
    ("IMAGE_SIZES", "", "[images] sizes"),
    ("IMAGE_SIZES", "thumbnail", "[images] sizes"),
    ("IMAGE_SIZES", "../x=100", "[images] sizes"),
    ("IMAGE_SIZES", "Big=100", "[images] sizes"),
    ("WEBP_QUALITY", "101", "[images] webp_quality"),
    ("WEBP_QUALITY", "8.5", "[images] webp_quality"),
    ("IMGSVC_IMAGES_WEBP_EFFORT", "7", "[images] webp_effort"),
    ("IMGSVC_IMAGES_WEBP_QUALITY_BY_SIZE", "best", "[images] webp_quality_by_size"),
    ("IMGSVC_IMAGES_MAX_PIXELS", "0", "[images] max_pixels"),
    ("IMGSVC_IMAGES_MAX_FRAMES", "0", "[images] max_frames"),
    ("IMGSVC_WORKERS_COUNT", "-1", "[workers] count"),
    ("IMGSVC_JOBS_MAX_ATTEMPTS", "0", "[jobs] max_attempts"),
    ("IMGSVC_JOBS_RETRY_DELAY_SECONDS", "nan", "[jobs] retry_delay_seconds"),
    ("LOG_LEVEL", "LOUD", "[log] level"),
    ("LOG_JSON", "maybe", "[log] json_lines"),
]


@pytest.mark.parametrize(("name", "text", "setting"), BAD)
def test_a_bad_value_is_named(folder: Path, name: str, text: str, setting: str) -> None:
    start, _, reason = problem(folder, {name: text}).partition(f" ({name}) = {text!r}: ")
    assert start == setting
    assert len(reason) > 10


@pytest.mark.parametrize(("size", "side"), [("thumbnail", "0"), ("medium", "16384"), ("large", "wide"), ("x", "1.5")])
def test_a_bad_size_is_named(folder: Path, size: str, side: str) -> None:
    message = problem(folder, {"IMAGE_SIZES": f"good=100,{size}={side}"})
    assert message.startswith(f"[images] sizes.{size} (IMAGE_SIZES) = {side!r}: ")


def test_an_empty_list_of_types_is_refused(folder: Path) -> None:
    assert problem(folder, {"ALLOWED_MIME_TYPES": ""}).startswith("[uploads] allowed_mime_types (ALLOWED_MIME_TYPES) ")


@pytest.mark.parametrize(("value", "shown"), [('"many"', "'many'"), ("-5", "-5"), ("[1]", "[1]"), ("1.5", "1.5")])
def test_a_bad_value_in_the_file_is_named(folder: Path, value: str, shown: str) -> None:
    message = problem(folder, toml=f"[workers]\ncount = {value}\n")
    assert message.startswith(f"[workers] count (IMGSVC_WORKERS_COUNT) = {shown}: ")


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[servre]\nport = 1\n", "[servre]: no such section"),
        ("port = 1\n", "[port]: no such section"),
        ("[server]\nprot = 1\n", "[server] prot: there is no such setting"),
        ("[server.port]\nx = 1\n", "[server] port (IMGSVC_SERVER_PORT) = {'x': 1}: "),
        ("server = 1\n", "[server]: "),
        ('[server]\ncertfile = "x"\n', "[server]: certfile and keyfile go together"),
    ],
)
def test_what_is_not_a_setting_is_named(folder: Path, toml: str, message: str) -> None:
    assert problem(folder, toml=toml).startswith(message)


@pytest.mark.parametrize("data", [b"[server\n", b"port 1\n", b"a = 1\na = 2\n", b"[server]\nhost = '\xff'\n"])
def test_a_damaged_file_is_named(folder: Path, data: bytes) -> None:
    (folder / "config.toml").write_bytes(data)
    with pytest.raises(SettingsError, match=r"^config\.toml can't be read: .+$"):
        Settings.load(environ={})


def test_a_damaged_env_file_is_named(folder: Path) -> None:
    (folder / ".env").write_bytes(b"SERVICE_NAME=caf\xe9\n")
    with pytest.raises(SettingsError, match=r"^\.env can't be read: .+$"):
        Settings.load(environ={})


@pytest.mark.parametrize("secret", ["hush", "hush" * 7 + "hus", "é" * 15 + "a"])
@pytest.mark.parametrize("in_file", [False, True])
def test_a_short_secret_is_refused_and_not_repeated(folder: Path, secret: str, in_file: bool) -> None:
    toml = f'[auth]\njwt_secret_key = "{secret}"' if in_file else ""
    message = problem(folder, {} if in_file else {"JWT_SECRET_KEY": secret}, toml)
    assert message.startswith("[auth] jwt_secret_key (JWT_SECRET_KEY) = (hidden): ")
    assert f"{len(secret.encode())} bytes" in message and "32" in message
    assert secret not in message


@pytest.mark.parametrize(
    "toml", ['auth = "hush-hush"', '[auth]\njwt_secret_key = ["hush-hush"]', '[auth]\njwt_secret_key = "hush-hush']
)
def test_a_misplaced_secret_is_not_repeated(folder: Path, toml: str) -> None:
    assert "hush" not in problem(folder, toml=toml)


def test_s3_needs_a_bucket_and_both_keys(folder: Path) -> None:
    assert problem(folder, {"STORAGE_BACKEND": "s3"}).startswith("[s3] bucket (AWS_S3_BUCKET_NAME) = '': ")
    keys = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "hush"}
    for name, lacking in (("AWS_ACCESS_KEY_ID", "secret_access_key"), ("AWS_SECRET_ACCESS_KEY", "access_key_id")):
        message = problem(folder, {name: keys[name]})
        assert message.startswith("[s3]: ") and lacking in message and keys[name] not in message
    settings = load(
        folder, {**keys, "STORAGE_BACKEND": "s3", "AWS_S3_BUCKET_NAME": "pictures", "AWS_SESSION_TOKEN": "psst"}
    )
    assert settings.s3.secret_access_key.get_secret_value() == "hush"
    assert not {"hush", "psst"} & set(re.findall(r"\w+", f"{settings!r} {settings} {settings.model_dump_json()}"))


@pytest.mark.parametrize("secret", ["", "s" * 32, "é" * 16])
def test_a_secret_is_accepted_and_not_shown(folder: Path, secret: str) -> None:
    settings = load(folder, {"JWT_SECRET_KEY": secret})
    assert settings.auth.jwt_secret_key.get_secret_value() == secret
    assert not secret or secret not in repr(settings) + str(settings) + settings.model_dump_json()


@pytest.mark.parametrize(("section", "field"), [(section, field) for section, field, _ in environment_names()])
def test_settings_are_frozen(section: str, field: str) -> None:
    settings: Any = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        setattr(getattr(settings, section), field, None)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings, section, None)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("IMGSVC_SERVER_PROT", "IMGSVC_SERVER_PROT: there is no such setting; IMGSVC_SERVER_PORT is one"),
        ("IMGSVC_SERVER_PROT_FILE", "there is no such setting; IMGSVC_SERVER_PORT_FILE is one"),
        ("IMGSVC_JWT_SECRET_KEY", "IMGSVC_JWT_SECRET_KEY: there is no such setting"),
    ],
)
def test_a_misspelt_variable_is_refused_by_name(folder: Path, name: str, said: str) -> None:
    assert said in problem(folder, {name: "8000"})
    (folder / ".env").write_text(f"{name}=8000\n")
    with pytest.raises(SettingsError, match="there is no such setting"):
        Settings.load(folder / "my.toml", {})


@pytest.mark.parametrize("name", ["IMGSVC_TOKEN", "IMGSVC_SERVER_HTTP2", "IMAGE_TAG", "imgsvc_server_prot"])
def test_other_variables_are_not_looked_at(folder: Path, name: str) -> None:
    assert load(folder, {name: "0"}) == Settings()


# As kubelet sets them for services named imgsvc and imgsvc-server (kubernetes.io, "Accessing the Service").
LINKS = {
    "IMGSVC_SERVICE_HOST": "10.0.0.11",
    "IMGSVC_SERVICE_PORT": "8000",
    "IMGSVC_SERVICE_PORT_HTTP": "8000",
    "IMGSVC_PORT": "tcp://10.0.0.11:8000",
    "IMGSVC_PORT_8000_TCP": "tcp://10.0.0.11:8000",
    "IMGSVC_PORT_8000_TCP_PROTO": "tcp",
    "IMGSVC_PORT_8000_TCP_PORT": "8000",
    "IMGSVC_PORT_8000_TCP_ADDR": "10.0.0.11",
    "IMGSVC_PORT_53_UDP": "udp://10.0.0.11:53",
    "IMGSVC_SERVER_SERVICE_HOST": "10.0.0.12",
    "IMGSVC_SERVER_PORT": "tcp://10.0.0.12:8000",
    "IMGSVC_SERVER_PORT_8000_TCP": "tcp://[fd00::12]:8000",
}


def test_service_links_of_kubernetes_are_ignored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LINKS.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load()
    assert settings.server.port == 8000
    assert ignored_service_links() == sorted(LINKS)


def test_a_setting_given_as_such_is_no_service_link(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGSVC_SERVER_PORT", "8001")
    assert Settings.load().server.port == 8001
    assert ignored_service_links() == []
    assert "REDIS_URL" in problem(folder, {"REDIS_URL": "tcp://10.0.0.11:6379"})


@pytest.mark.parametrize("location", ["protected/", "/protected", "//", "/pro tected/", "/a/../?"])
def test_accel_redirect_is_a_location_of_the_proxy(folder: Path, location: str) -> None:
    toml = f'[server]\ntrusted_proxies = ["127.0.0.1/32"]\naccel_redirect = "{location}"\n'
    assert "accel_redirect" in problem(folder, toml=toml)


def test_accel_redirect_needs_a_proxy(folder: Path) -> None:
    assert "trusted_proxies" in problem(folder, toml='[server]\naccel_redirect = "/protected/"')
    for host in ('host = "unix:/run/s"', 'trusted_proxies = ["10.0.0.0/8"]'):
        assert load(folder, toml=f'[server]\n{host}\naccel_redirect = "/protected/"').server.accel_redirect
