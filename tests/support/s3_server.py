"""OpenStack Swift with its S3 API, all of it in one process on loopback.

`python -m tests.support.s3_server FOLDER PORT SECRET [PID]`, port 0 for a free one. It checks signatures, their expiry
and Content-MD5, and really encrypts for AES256. The access key is `test:tester`. Prints one line once it listens. With
PID it ends when that process has, and removes its folder.
Always a process of its own: eventlet patches the standard library.
"""

import eventlet

eventlet.monkey_patch()

import base64  # noqa: E402, nothing may be imported before it is patched
import json  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import eventlet.wsgi  # noqa: E402
from eventlet.hubs import trampoline  # noqa: E402
from swift.common import storage_policy, utils  # noqa: E402
from swift.common.ring import RingBuilder  # noqa: E402
from swift.common.wsgi import SwiftHttpProtocol, loadapp  # noqa: E402

Application = Callable[[dict[str, Any], Any], Any]  # of WSGI
DEVICE = "d1"
CLUSTER = """
[swift-hash]
swift_hash_path_suffix = t
swift_hash_path_prefix = t
[storage-policy:0]
name = p0
default = yes
"""
COMMON = """
[DEFAULT]
devices = {devices}
mount_check = false
swift_dir = {etc}
log_level = ERROR
log_udp_host = 127.0.0.1
"""
BACKEND = """
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
disable_fallocate = true
log_requests = false
"""
FILTERS = {
    "catch_errors": "",
    "gatekeeper": "",
    "listing_formats": "",
    "bulk": "",
    "s3api": "location = us-east-1\ns3_acl = false\ncheck_bucket_owner = false",
    "tempauth": "user_test_tester = {secret} .admin",
    "copy": "",
    "slo": "",
    "dlo": "",
    "symlink": "",
    "keymaster": f"encryption_root_secret = {base64.b64encode(b'0' * 32).decode()}",
    "encryption": "",
}


def main() -> None:
    folder, port, secret = Path(sys.argv[1]).absolute(), int(sys.argv[2]), sys.argv[3]
    etc, devices = folder / "etc", folder / "devices"
    etc.mkdir(parents=True, exist_ok=True)
    (devices / DEVICE).mkdir(parents=True, exist_ok=True)
    (etc / "swift.conf").write_text(CLUSTER)
    utils.set_swift_dir(str(etc))
    utils.validate_hash_conf()
    storage_policy.reload_storage_policies()
    common = COMMON.format(devices=devices, etc=etc)
    backends = {kind: _listen(0) for kind in ("account", "container", "object")}
    for kind, listener in backends.items():
        _write_ring(etc / f"{kind}.ring.gz", listener.getsockname()[1])
    front = _listen(port)
    for kind, listener in backends.items():
        _serve(listener, _app(etc / f"{kind}-server.conf", common + BACKEND.format(kind=kind)))
    _serve(front, _with_cache(_app(etc / "proxy-server.conf", common + _proxy(secret))))
    print("ready", front.getsockname()[1], flush=True)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if len(sys.argv) > 4:
        trampoline(os.pidfd_open(int(sys.argv[4])), read=True)
        shutil.rmtree(folder)
        os._exit(0)
    while True:
        eventlet.sleep(3600)


def _listen(port: int) -> socket.socket:
    listener: socket.socket = eventlet.listen(("127.0.0.1", port))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _write_ring(path: Path, port: int) -> None:
    """One partition scheme with one device: everything is stored once, behind this port."""
    builder = RingBuilder(2, 1, 0)
    place = {"id": 0, "region": 1, "zone": 1, "weight": 1.0, "ip": "127.0.0.1", "port": port}
    builder.add_dev({**place, "device": DEVICE, "meta": ""})
    builder.rebalance(seed=1)
    builder.get_ring().save(str(path))


def _proxy(secret: str) -> str:
    names = [*FILTERS, "proxy-server"]
    sections = (f"[filter:{name}]\nuse = egg:swift#{name}\n{more}\n" for name, more in FILTERS.items())
    app = "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"
    return f"[pipeline:main]\npipeline = {' '.join(names)}\n{app}{''.join(sections).format(secret=secret)}"


def _app(config: Path, text: str) -> Application:
    config.write_text(text)
    app: Application = loadapp(str(config))
    return app


def _with_cache(app: Application) -> Application:
    """Without a cache the proxy asks for the account and the container again at each request."""
    cache = Cache()

    def cached(environ: dict[str, Any], start_response: Any) -> Any:
        environ["swift.cache"] = cache
        return app(environ, start_response)

    return cached


class Cache:
    """In the place of memcached, as far as the proxy uses it. Nothing runs out: the proxy drops what it changes."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def get(self, key: str, **_: object) -> Any:
        return json.loads(self._values.get(key, "null"))

    def set(self, key: str, value: Any, **_: object) -> None:
        self._values[key] = json.dumps(value)

    def delete(self, key: str, **_: object) -> None:
        self._values.pop(key, None)


def _serve(listener: socket.socket, app: Application) -> None:
    silent = logging.getLogger("silent")
    silent.disabled = True
    eventlet.spawn(eventlet.wsgi.server, listener, app, silent, protocol=SwiftHttpProtocol, log_output=False)


if __name__ == "__main__":
    main()
