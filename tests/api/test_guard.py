"""Who may read the endpoint when it is guarded: tokens, client certificates, TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from revip.api.http import server
from revip.model.http import HttpSpec
from revip.model.notes import Kind
from tests.api.conftest import LOOPBACK, Endpoint, serving

TOKEN = "s3cret-of-forty-two-characters-or-so"
SECRET = ("/metrics", "/api/v1/status", "/api/v1/events", "/nothing")
OPEN = ("/livez", "/readyz", "/healthz", "/")


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return path


@pytest.fixture
async def guarded(token: Path) -> AsyncIterator[Endpoint]:
    async with serving(HttpSpec(LOOPBACK, token_file=token)) as endpoint:
        yield endpoint


def rewrite(path: Path, content: bytes | None) -> None:
    """Replace a file's content, or remove the file."""
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


def bearer(token: str) -> str:
    return f"Authorization: Bearer {token}"


@pytest.mark.parametrize("path", SECRET)
async def test_without_the_token_nothing_is_told(guarded: Endpoint, path: str) -> None:
    answer = await guarded.get(path)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="revip"'
    assert guarded.snapshot["node"].encode() not in answer.body.replace(b"certificate", b"")


async def test_with_it_everything_is(guarded: Endpoint) -> None:
    for path in ("/metrics", "/api/v1/status"):
        assert (await guarded.get(path, bearer(TOKEN))).status == 200
        assert (await guarded.get(path, f"authorization: bearer   {TOKEN} ")).status == 200
    assert guarded.server.refused == 0


@pytest.mark.parametrize(
    "header",
    [
        bearer("wrong"),
        bearer(TOKEN[:-1]),
        bearer(TOKEN + "x"),
        bearer(TOKEN.upper()),
        bearer(""),
        bearer("\xff\xfe"),
        f"Authorization: Basic {TOKEN}",
        f"Authorization: {TOKEN}",
        f"X-Token: {TOKEN}",
    ],
)
async def test_a_wrong_token_is_refused(guarded: Endpoint, header: str) -> None:
    assert (await guarded.get("/metrics", header)).status == 401
    assert guarded.server.refused == 1


async def test_a_token_in_the_address_is_none(guarded: Endpoint) -> None:
    assert (await guarded.get(f"/metrics?token={TOKEN}")).status == 401


async def test_wrong_tokens_are_counted_each_and_noted_seldom(guarded: Endpoint) -> None:
    for _ in range(20):
        await guarded.get("/metrics", bearer("wrong"))
    assert guarded.server.refused == 20
    (noted,) = guarded.notes
    assert noted.kind is Kind.ACCESS
    assert noted.text == "HTTP: 127.0.0.1 showed a wrong token; 1 refused so far"
    assert "wrong" in noted.text
    assert TOKEN not in noted.text


async def test_health_and_the_page_are_open_but_tell_no_reasons(guarded: Endpoint) -> None:
    guarded.snapshot["host"]["error"] = "there is no interface eth0"
    assert (await guarded.get("/livez")).status == 200
    assert (await guarded.get("/")).status == 200
    plain = await guarded.get("/readyz?verbose")
    assert plain.status == 503
    assert b"[-]host failed\n" in plain.body
    assert b"eth0" not in plain.body
    assert b"eth0" in (await guarded.get("/readyz?verbose", bearer(TOKEN))).body
    assert guarded.server.refused == 0
    assert guarded.notes == []


async def test_a_new_token_counts_at_once_and_the_old_one_no_more(
    guarded: Endpoint, token: Path
) -> None:
    assert (await guarded.get("/metrics", bearer(TOKEN))).status == 200
    rewrite(token, b"another-one,-longer\n")
    assert (await guarded.get("/metrics", bearer(TOKEN))).status == 401
    assert (await guarded.get("/metrics", bearer("another-one,-longer"))).status == 200


@pytest.mark.parametrize("content", [None, b"", b"\n"])
async def test_without_a_token_in_the_file_nobody_is_let_in(
    guarded: Endpoint, token: Path, content: bytes | None
) -> None:
    rewrite(token, content)
    for tried in ("", TOKEN):
        assert (await guarded.get("/metrics", bearer(tried))).status == 401


# TLS -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def write(authority: trustme.CA, folder: Path) -> tuple[Path, Path]:
    issued = authority.issue_cert("localhost", "127.0.0.1")
    certificate, key = folder / "tls.crt", folder / "tls.key"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return certificate, key


def client(authority: trustme.CA, shows: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if shows is not None:
        shows.issue_cert("prometheus").configure_cert(context)
    return context


@pytest.fixture
async def exposed(authority: trustme.CA, token: Path, tmp_path: Path) -> AsyncIterator[Endpoint]:
    certificate, key = write(authority, tmp_path)
    ca = tmp_path / "clients.crt"
    authority.cert_pem.write_to_path(ca)
    async with serving(HttpSpec(LOOPBACK, certificate, key, ca, token)) as endpoint:
        yield endpoint


async def test_over_tls_a_token_or_a_certificate_lets_in(
    exposed: Endpoint, authority: trustme.CA
) -> None:
    bare = client(authority)
    assert (await exposed.get("/metrics", context=bare)).status == 401
    assert (await exposed.get("/livez", context=bare)).status == 200
    assert (await exposed.get("/metrics", bearer(TOKEN), context=bare)).status == 200
    shown = client(authority, shows=authority)
    assert (await exposed.get("/metrics", context=shown, host="node-1.example")).status == 200


async def test_a_certificate_of_somebody_else_lets_nobody_in(
    exposed: Endpoint, authority: trustme.CA
) -> None:
    stranger = client(authority, shows=trustme.CA())
    with pytest.raises((ssl.SSLError, ConnectionError, IndexError)):
        await exposed.get("/metrics", context=stranger)
    assert (await exposed.get("/livez", context=client(authority))).status == 200


async def test_plain_http_gets_nothing_over_tls(exposed: Endpoint, authority: trustme.CA) -> None:
    exposed.context = None
    said = await exposed.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"200" not in said
    assert (await exposed.get("/livez", context=client(authority))).status == 200


async def test_a_handshake_that_hangs_is_given_up(
    exposed: Endpoint, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_SECONDS", 0.2)
    loop = asyncio.get_running_loop()
    with socket.socket() as hanging:
        hanging.setblocking(False)
        await loop.sock_connect(hanging, ("127.0.0.1", exposed.port))
        async with asyncio.timeout(5):
            assert await loop.sock_recv(hanging, 10) == b""
    assert (await exposed.get("/livez", context=client(authority))).status == 200


async def test_a_new_certificate_is_used_for_the_next_connection(
    exposed: Endpoint, authority: trustme.CA, tmp_path: Path
) -> None:
    other = trustme.CA()
    with pytest.raises(ssl.SSLCertVerificationError):
        await exposed.get("/livez", context=client(other))
    write(other, tmp_path)
    assert (await exposed.get("/livez", context=client(other))).status == 200


async def test_a_broken_new_certificate_leaves_the_old_one(
    exposed: Endpoint, authority: trustme.CA, tmp_path: Path
) -> None:
    assert (await exposed.get("/livez", context=client(authority))).status == 200
    rewrite(tmp_path / "tls.crt", b"half of a certifica")
    assert (await exposed.get("/livez", context=client(authority))).status == 200
    rewrite(tmp_path / "tls.crt", None)
    assert (await exposed.get("/livez", context=client(authority))).status == 200
