"""The page: self-contained, allowed nothing but itself, and readable in a real browser."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import shutil
import tempfile

import pytest

from revip.api.http.page import page
from tests.api.conftest import Endpoint, serving, whole
from tests.cli import moments

CHROMIUM = shutil.which("chromium")
TEXT = page().content.decode()


def policy() -> str:
    return dict(page().headers)["Content-Security-Policy"]


def test_it_needs_nothing_from_elsewhere() -> None:
    assert set(re.findall(r"https?://[^\"')\s]+", TEXT)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(script|link|img|iframe)[^>]+src=", TEXT)
    assert "@import" not in TEXT
    assert len(TEXT) < 60_000


def test_only_its_own_script_and_style_may_run() -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", TEXT, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy()
    assert policy().startswith("default-src 'none';")
    assert "unsafe" not in policy()
    assert not re.search(r"<[^>]+ (style|on\w+)=", TEXT)  # the policy would not let them be


def test_nothing_that_a_node_says_is_taken_for_markup() -> None:
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", TEXT)


def test_it_has_what_a_screen_reader_needs() -> None:
    assert '<html lang="en">' in TEXT
    assert 'aria-live="polite"' in TEXT
    assert 'class="skip" href="#main"' in TEXT
    for control in re.findall(r"<input[^>]*>", TEXT):
        name = re.search(r'id="([a-z-]+)"', control)
        assert name is not None
        labelled = f'for="{name[1]}"' in TEXT or re.search(rf"<label><input id=\"{name[1]}", TEXT)
        assert labelled


async def seen(endpoint: Endpoint) -> str:
    """Return the text of the page as a browser has it after some seconds of its own clock."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory() as profile:
        browser = await asyncio.create_subprocess_exec(
            CHROMIUM,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={profile}",
            "--virtual-time-budget=4000",
            "--dump-dom",
            f"http://127.0.0.1:{endpoint.port}/",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "HOME": profile},
        )
        try:
            async with asyncio.timeout(60):
                said, _ = await browser.communicate()
        finally:
            if browser.returncode is None:
                browser.kill()
                await browser.wait()
    body = re.sub(r"<(script|style).*?</\1>", "", said.decode(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@in_a_browser
@pytest.mark.slow
async def test_what_is_wrong_is_read_at_a_glance_and_hostile_text_is_text() -> None:
    async with serving() as endpoint:
        snapshot = moments.at("one out")
        n3 = snapshot["virtual_servers"][0]["backends"][2]
        n3 |= {"kernel_weight": None, "reason": "<img src=x onerror=alert(1)>"}
        endpoint.snapshot.clear()
        endpoint.snapshot.update(whole(snapshot))
        text = await seen(endpoint)
    assert "n1 attention" in text
    assert "api: n2 (10.0.1.19:6443) is unhealthy for 94 s: connection refused" in text
    assert "start the server on n2" in text
    assert "10.0.1.10:6443 on eth0 this node directs" in text
    assert "wanted in kernel out differs" in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert " live " in text
    assert "n2 is unhealthy" in text[text.index("Timeline") :]


@in_a_browser
@pytest.mark.slow
async def test_panic_is_loud() -> None:
    async with serving() as endpoint:
        endpoint.snapshot.clear()
        endpoint.snapshot.update(whole(moments.at("panic")))
        text = await seen(endpoint)
    assert "n1 trouble" in text
    for trouble in endpoint.snapshot["troubles"]:
        assert trouble["mend"] in text
