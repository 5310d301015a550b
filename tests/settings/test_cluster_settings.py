"""The settings of a cluster that renders: settings that would let strangers in must be confirmed."""

import pytest

from imgsvc.settings import Settings, SettingsError
from imgsvc.settings.hosts import allowed_hosts

FILES = {f"IMGSVC_WORKERS_{name}": "/etc/imgsvc/x.pem" for name in ("CAFILE", "CERTFILE", "KEYFILE")}
SCHEDULER = "IMGSVC_WORKERS_SCHEDULER"
DASK = {"IMGSVC_WORKERS_ENGINE": "dask", SCHEDULER: "tls://127.0.0.1:8786", **FILES}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"IMGSVC_WORKERS_ENGINE": "dask"}, "scheduler (IMGSVC_WORKERS_SCHEDULER) = ''"),
        ({SCHEDULER: "tcp://127.0.0.1:8786"}, "only tls:// is accepted"),
        ({SCHEDULER: "tcp://127.0.0.1:8786", **FILES}, "only tls:// is accepted"),
        ({SCHEDULER: "http://127.0.0.1:8786"}, "must be tls://HOST:PORT"),
        ({SCHEDULER: "tls://127.0.0.1"}, "must be tls://HOST:PORT"),
        ({SCHEDULER: "tls://127.0.0.1:8786"}, "ca_file (IMGSVC_WORKERS_CAFILE) = ''"),
        (
            {SCHEDULER: "tls://127.0.0.1:8786", **FILES, "IMGSVC_WORKERS_KEYFILE": ""},
            "keyfile (IMGSVC_WORKERS_KEYFILE)",
        ),
        ({"IMGSVC_WORKERS_SERVICE_URL": "10.0.0.2:8000"}, "absolute http(s) URL"),
        ({**DASK, "IMGSVC_SERVER_HOST": "unix:/run/imgsvc/http.sock"}, "service_url (IMGSVC_WORKERS_SERVICE_URL) = ''"),
    ],
)
def test_refused(given: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.load(environ=given)
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_taken() -> None:
    given = {"IMGSVC_WORKERS_ENGINE": "dask", SCHEDULER: "tls://[::1]:8786", **FILES}
    assert Settings.load(environ=given).workers.local_renders == 1
    insecure = {**given, SCHEDULER: "tcp://127.0.0.1:8786", "IMGSVC_WORKERS_INSECURE": "true"}
    assert Settings.load(environ=insecure).workers.scheduler == "tcp://127.0.0.1:8786"


def test_address_for_machines_is_one_that_the_service_answers_for() -> None:
    settings = Settings.load(environ={"IMGSVC_WORKERS_SERVICE_URL": "http://render.internal:8000"})
    assert "render.internal" in allowed_hosts(settings)
