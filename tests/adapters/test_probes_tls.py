"""What TLS probes accept, and the words they have for what they do not."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from revip.model.health import CertificateEnds, Finding
from revip.model.spec import ProbeSpec
from tests.adapters.conftest import HASTY, Backends, answer, hang, server_context


def in_days(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


async def test_the_certificate_must_name_the_address(
    backends: Backends, https: ProbeSpec, serving: ssl.SSLContext
) -> None:
    server = await backends.serve_http(context=serving)
    result = await backends.probe(server.port, https).ask(fresh=False)
    assert (result.finding, result.reason) == (Finding.READY, "HTTP 200")


async def test_or_the_server_name_that_is_configured(
    backends: Backends, https: ProbeSpec, authority: trustme.CA
) -> None:
    context = server_context(authority.issue_cert("kubernetes"))
    server = await backends.serve_http(context=context)
    probe = backends.probe(server.port, replace(https, server_name="kubernetes"))
    assert (await probe.ask(fresh=False)).reason == "HTTP 200"


async def test_a_server_name_that_cannot_be_one_is_our_fault(
    backends: Backends, https: ProbeSpec, serving: ssl.SSLContext
) -> None:
    server = await backends.serve_http(context=serving)
    result = await backends.probe(server.port, replace(https, server_name=".")).ask(fresh=False)
    assert result.finding is Finding.OURS
    assert result.reason.endswith("check path and server_name")


async def test_only_http_1_1_is_offered(
    backends: Backends, https: ProbeSpec, authority: trustme.CA
) -> None:
    context = server_context(authority.issue_cert("127.0.0.1"))
    context.set_alpn_protocols(["h2", "http/1.1"])
    server = await backends.serve_http(context=context)
    await backends.probe(server.port, https).ask(fresh=False)
    chosen = server.writers[0].get_extra_info("ssl_object").selected_alpn_protocol()
    assert chosen == "http/1.1"


async def test_another_name_is_told_with_the_names_there_are(
    backends: Backends, https: ProbeSpec, authority: trustme.CA
) -> None:
    context = server_context(authority.issue_cert("10.0.1.16", "kubernetes"))
    server = await backends.serve_http(context=context)
    result = await backends.probe(server.port, https).ask(fresh=False)
    assert (result.finding, result.stage) == (Finding.FAILED, "tls")
    assert result.reason == "certificate is for 10.0.1.16, kubernetes, not 127.0.0.1"


async def test_an_expired_certificate_is_told_with_its_date(
    backends: Backends, https: ProbeSpec, authority: trustme.CA
) -> None:
    end = in_days(-2)
    context = server_context(authority.issue_cert("127.0.0.1", not_after=end))
    server = await backends.serve_http(context=context)
    probe = backends.probe(server.port, https)
    result = await probe.ask(fresh=False)
    assert result.finding is Finding.FAILED
    assert result.reason == f"certificate has expired on {end:%Y-%m-%d}"
    connections = server.connections
    assert (await probe.ask(fresh=False)).reason == result.reason
    assert server.connections == connections + 1  # the second look is taken once


async def test_a_certificate_from_the_future_points_at_the_clocks(
    backends: Backends, https: ProbeSpec, authority: trustme.CA
) -> None:
    begin = in_days(3)
    context = server_context(
        authority.issue_cert("127.0.0.1", not_before=begin, not_after=in_days(9))
    )
    server = await backends.serve_http(context=context)
    result = await backends.probe(server.port, https).ask(fresh=False)
    assert result.reason == f"certificate is not valid before {begin:%Y-%m-%d}: compare the clocks"


async def test_an_unknown_authority_is_told_with_the_file_of_ours(
    backends: Backends, https: ProbeSpec
) -> None:
    context = server_context(trustme.CA().issue_cert("127.0.0.1"))
    server = await backends.serve_http(context=context)
    result = await backends.probe(server.port, https).ask(fresh=False)
    assert result.finding is Finding.FAILED
    assert result.reason == f"certificate signed by unknown authority (ca: {https.ca})"


async def test_without_ca_the_system_is_asked(backends: Backends, serving: ssl.SSLContext) -> None:
    server = await backends.serve_http(context=serving)
    result = await backends.probe(server.port, ProbeSpec()).ask(fresh=False)
    assert result.reason.endswith("unknown authority (ca: the system's trust store)")


async def test_verification_can_be_turned_off(backends: Backends) -> None:
    context = server_context(trustme.CA().issue_cert("elsewhere", not_after=in_days(-1)))
    server = await backends.serve_http(context=context)
    result = await backends.probe(server.port, ProbeSpec(verify=False)).ask(fresh=False)
    assert (result.finding, result.reason) == (Finding.READY, "HTTP 200")


@pytest.mark.parametrize(
    ("days", "note"),
    [(3.5, "; certificate expires in 3 d"), (0.5, "; certificate expires today"), (15, "")],
)
async def test_a_certificate_about_to_expire_is_noted(
    backends: Backends, https: ProbeSpec, authority: trustme.CA, days: float, note: str
) -> None:
    end = in_days(days)
    context = server_context(authority.issue_cert("127.0.0.1", not_after=end))
    server = await backends.serve_http(context=context)
    result = await backends.probe(server.port, https).ask(fresh=False)
    assert (result.finding, result.reason) == (Finding.READY, f"HTTP 200{note}")
    assert result.certificates == CertificateEnds(int(end.timestamp()))


async def test_a_hanging_handshake_is_told_apart(backends: Backends, https: ProbeSpec) -> None:
    server = await backends.serve(hang)
    result = await backends.probe(server.port, https, HASTY).ask(fresh=False)
    assert result.finding is Finding.FAILED
    assert (result.reason, result.stage) == ("TLS handshake not finished in 80 ms", "tls")


async def test_an_end_within_the_handshake_is_told_apart(
    backends: Backends, https: ProbeSpec
) -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(5000)
        writer.close()

    server = await backends.serve(leave)
    result = await backends.probe(server.port, https).ask(fresh=False)
    assert result.finding is Finding.FAILED
    assert result.reason == "connection closed during the TLS handshake"


async def test_a_port_that_speaks_plain_http_is_told_apart(
    backends: Backends, https: ProbeSpec
) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(5000)
        writer.write(answer("400 Bad Request"))

    server = await backends.serve(plain)
    result = await backends.probe(server.port, https).ask(fresh=False)
    assert (result.finding, result.stage) == (Finding.FAILED, "tls")
    assert result.reason == "not TLS: is this an https port?"


def asking_for_certificates(authority: trustme.CA, clients: trustme.CA) -> ssl.SSLContext:
    context = server_context(authority.issue_cert("127.0.0.1"))
    context.verify_mode = ssl.CERT_REQUIRED
    clients.configure_trust(context)
    return context


@contextlib.asynccontextmanager
async def refusing(context: ssl.SSLContext) -> AsyncIterator[int]:
    """Serve one connection whose handshake fails; yield the port.

    A blocking server, since asyncio's ends a failed handshake without the alert that says why,
    which Go's crypto/tls and every other server send.
    """

    def serve() -> None:
        sock, _ = listener.accept()
        tls = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        with tls, contextlib.suppress(OSError):
            with contextlib.suppress(ssl.SSLError):
                tls.do_handshake()
            # Read what has come: closing over unread data would send a reset, which can outrun
            # the alert.  The raw read, for there is no TLS session to read from.
            socket.socket.shutdown(tls, socket.SHUT_WR)
            while socket.socket.recv(tls, 4096):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.ensure_future(asyncio.to_thread(serve))
        yield listener.getsockname()[1]
        await serving


def with_client(spec: ProbeSpec, certificate: trustme.LeafCert, folder: Path) -> ProbeSpec:
    chain, key = folder / "client.crt", folder / "client.key"
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(str(key))
    return replace(spec, client_certificate=chain, client_key=key)


async def test_our_client_certificate_is_shown(
    backends: Backends, https: ProbeSpec, authority: trustme.CA, tmp_path: Path
) -> None:
    context = asking_for_certificates(authority, authority)
    server = await backends.serve_http(context=context)
    spec = with_client(https, authority.issue_cert("revip"), tmp_path)
    assert (await backends.probe(server.port, spec).ask(fresh=False)).reason == "HTTP 200"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("client", "says"),
    [
        ("expired", "the backend says that our client certificate has expired"),
        ("stranger", "the backend does not know the authority of our client certificate"),
    ],
)
async def test_a_refused_client_certificate_is_our_fault(
    backends: Backends,
    https: ProbeSpec,
    authority: trustme.CA,
    tmp_path: Path,
    version: ssl.TLSVersion,
    client: str,
    says: str,
) -> None:
    context = asking_for_certificates(authority, authority)
    context.maximum_version = version
    issued = {
        "expired": authority.issue_cert("revip", not_after=in_days(-1)),
        "stranger": trustme.CA().issue_cert("revip"),
    }[client]
    spec = with_client(https, issued, tmp_path)
    async with refusing(context) as port:
        result = await backends.probe(port, spec).ask(fresh=False)
    assert (result.finding, result.reason) == (Finding.OURS, says)


async def test_a_missing_client_certificate_is_our_fault(
    backends: Backends, https: ProbeSpec, authority: trustme.CA
) -> None:
    async with refusing(asking_for_certificates(authority, authority)) as port:
        result = await backends.probe(port, https).ask(fresh=False)
    assert result.finding is Finding.OURS
    assert result.reason == "the backend wants a client certificate: set client_certificate"


async def test_a_denial_mentions_that_our_certificate_has_expired(
    backends: Backends, https: ProbeSpec, authority: trustme.CA, tmp_path: Path
) -> None:
    # kube-apiserver requests client certificates without requiring them: it answers 401.
    context = server_context(authority.issue_cert("127.0.0.1"))
    server = await backends.serve_http(answer("401 Unauthorized"), context=context)
    spec = with_client(https, authority.issue_cert("revip", not_after=in_days(-1)), tmp_path)
    result = await backends.probe(server.port, spec).ask(fresh=False)
    assert result.finding is Finding.DENIED
    assert re.search(r"client.crt.*; our client certificate has expired$", result.reason)
