"""Signing in to the dashboard at a certified provider, in a real browser, from site to site.

It needs Node and the package oidc-provider, in the folder that OIDC_PROVIDER names or wherever Node looks for it.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.support.browser import IN_BROWSER, browsing
from tests.support.server_process import InlineServer

SCRIPT = Path(__file__).parents[1] / "support" / "certified_provider.mjs"
FOLDER = os.environ.get("OIDC_PROVIDER", str(Path.cwd()))
pytestmark = [pytest.mark.process, *IN_BROWSER]


@contextmanager
def provider(port: int, redirect: str) -> Iterator[str]:
    """Its address."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed")
    line = [node, str(SCRIPT), str(port), redirect, FOLDER]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stderr
    try:
        if process.stdout.readline() != "listens\n":
            words = process.stderr.read()
            assert "MODULE_NOT_FOUND" in words, words
            pytest.skip("the package oidc-provider is not installed for Node")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


async def sign_in(page: Page, name: str) -> None:
    """At the provider: the name, then the consent."""
    await page.fill("input[name=login]", name)
    await page.fill("input[name=password]", "any")
    await page.click("button[type=submit]")
    await page.click("button[type=submit]")


async def test_person_signs_in_at_a_certified_provider(tmp_path: Path) -> None:
    ours, theirs = free_ports(2)
    address = f"http://localhost:{ours}"  # another site than 127.0.0.1, as a provider is one
    with provider(theirs, f"{address}/dashboard/oidc/callback") as issuer:
        settings = {
            "PUBLIC_URL": address,
            "IMGSVC_OPERATOR_OIDC_ISSUER": issuer,
            "IMGSVC_OPERATOR_OIDC_CLIENT_ID": "imgsvc",
            "IMGSVC_OPERATOR_OIDC_CLIENT_SECRET": "s" * 40,
            "IMGSVC_OPERATOR_OIDC_ALLOWED": "email:ann@example.org",
        }
        with ExitStack() as ends:
            ends.push(InlineServer(tmp_path, **settings).start(ours))
            async with browsing(address) as visit:
                await visit.page.goto(f"{address}/dashboard")
                await visit.page.get_by_role("link", name="Sign in with 127.0.0.1").click()
                await sign_in(visit.page, "ann")
                await visit.page.wait_for_url(f"{address}/dashboard")
                await expect(visit.page.locator("#verdict-line")).to_have_text("All is well.")
            async with browsing(address) as visit:
                await visit.page.goto(f"{address}/dashboard/oidc/start")
                await sign_in(visit.page, "eve")
                await expect(visit.page.locator("h1")).to_have_text("Not allowed")
                await expect(visit.page.locator("main")).to_contain_text("signed you in as Ms eve")
