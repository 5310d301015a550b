"""Machines of the ordinary sort that are not like ours: what a cluster, a share or a shell brings with it."""

from pathlib import Path

import pytest

from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.process

# A service named imgsvc-server gives every pod of its namespace these (kubernetes.io, "Accessing the Service").
SERVICE_LINKS = {
    "IMGSVC_SERVER_SERVICE_HOST": "10.0.0.12",
    "IMGSVC_SERVER_PORT": "tcp://10.0.0.12:8000",
    "IMGSVC_SERVER_PORT_8000_TCP_ADDR": "10.0.0.12",
}


def test_service_links_of_kubernetes_are_one_warning(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, **SERVICE_LINKS) as server:
        said = [line for line in server.log.read_text().splitlines() if "enableServiceLinks" in line]
        assert len(said) == 1 and all(name in said[0] for name in SERVICE_LINKS)
        assert "IMGSVC_SERVER_PORT" in server.run("doctor").stdout
        token = server.run("token", "--sub", "me")
        assert (token.returncode, token.stderr) == (0, "")


def test_a_misspelt_variable_stops_the_start(tmp_path: Path) -> None:
    refused = ServerProcess(tmp_path, IMGSVC_SERVER_PROT="8000").run("serve", "--port", "0")
    assert (refused.returncode, refused.stderr) == (
        2,
        "imgsvc: IMGSVC_SERVER_PROT: there is no such setting; IMGSVC_SERVER_PORT is one\n",
    )
