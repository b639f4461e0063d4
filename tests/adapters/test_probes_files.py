"""Credentials that others replace while we run, and those that cannot be read."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from revip.adapters.probes.tls import TrustSetting, load_trust
from revip.model.health import Finding
from revip.model.spec import ProbeSpec
from tests.adapters.conftest import Backends, answer, server_context, unused_port


async def test_the_token_is_sent_and_read_again_when_it_is_rotated(
    backends: Backends, http: ProbeSpec, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    server = await backends.serve_http()
    probe = backends.probe(server.port, replace(http, token_file=token))
    await probe.ask(fresh=False)
    newer = tmp_path / "newer"
    newer.write_text("other\n")
    newer.replace(token)  # of the same size, and perhaps the same time: the inode tells
    assert (await probe.ask(fresh=False)).held
    assert b"Authorization: Bearer first\r\n" in server.heads[0]
    assert b"Authorization: Bearer other\r\n" in server.heads[1]


async def test_a_mounted_secret_is_followed_through_its_symlink(
    backends: Backends, http: ProbeSpec, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(name)
    data = tmp_path / "..data"
    data.symlink_to("one")
    server = await backends.serve_http()
    probe = backends.probe(server.port, replace(http, token_file=data / "token"))
    await probe.ask(fresh=False)
    swap = tmp_path / "..data_tmp"
    swap.symlink_to("two")
    swap.replace(data)
    await probe.ask(fresh=False)
    assert [head.split(b"Bearer ")[1][:3] for head in server.heads] == [b"one", b"two"]


@pytest.mark.parametrize(
    ("content", "why"), [("", "is empty"), (" \n", "is empty"), ("a b", "more than one token")]
)
async def test_an_unfit_token_is_our_fault(
    backends: Backends, http: ProbeSpec, tmp_path: Path, content: str, why: str
) -> None:
    token = tmp_path / "token"
    token.write_text(content)
    server = await backends.serve_http()
    result = await backends.probe(server.port, replace(http, token_file=token)).ask(fresh=False)
    assert result.finding is Finding.OURS
    assert result.reason.startswith(f"token_file {token} ")
    assert why in result.reason


async def test_a_missing_token_is_our_fault_and_the_connection_stays_watched(
    backends: Backends, http: ProbeSpec, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    server = await backends.serve_http()
    probe = backends.probe(server.port, replace(http, token_file=token))
    for _ in range(2):
        result = await probe.ask(fresh=False)
        assert result.finding is Finding.OURS
        assert result.reason == (
            f"cannot read token_file {token}: No such file or directory: "
            "provide the file or correct token_file"
        )
    token.write_text("here")
    assert (await probe.ask(fresh=False)).finding is Finding.READY
    assert server.connections == 1


async def test_a_missing_credential_does_not_hide_a_dead_backend(
    backends: Backends, https: ProbeSpec, tmp_path: Path
) -> None:
    spec = replace(https, ca=tmp_path / "none", token_file=tmp_path / "none")
    result = await backends.probe(unused_port(), spec).ask(fresh=False)
    assert result.finding is Finding.REFUSED


async def test_a_refused_token_is_named(
    backends: Backends, http: ProbeSpec, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    server = await backends.serve_http(answer("401 X"), answer("403 X"))
    probe = backends.probe(server.port, replace(http, token_file=token))
    reasons = [(await probe.ask(fresh=False)).reason for _ in range(2)]
    assert reasons[0] == f"HTTP 401: alive, but does not know our credential {token}: renew it"
    assert reasons[1] == (
        f"HTTP 403: alive, but does not let our credential {token} read /readyz: "
        "grant it get on this path"
    )


async def test_a_rotated_ca_is_trusted_from_the_next_connection_on(
    backends: Backends, https: ProbeSpec, authority: trustme.CA, tmp_path: Path
) -> None:
    successor = trustme.CA()
    ca = tmp_path / "ca.crt"
    authority.cert_pem.write_to_path(str(ca))
    context = server_context(successor.issue_cert("127.0.0.1"))
    server = await backends.serve_http(context=context)
    probe = backends.probe(server.port, replace(https, ca=ca))
    assert "unknown authority" in (await probe.ask(fresh=False)).reason
    successor.cert_pem.write_to_path(str(ca))
    assert (await probe.ask(fresh=False)).finding is Finding.READY
    ca.unlink()
    assert (await probe.ask(fresh=False)).finding is Finding.READY  # over the held connection
    assert (await probe.ask(fresh=True)).finding is Finding.OURS


async def test_a_rotated_client_certificate_is_shown_on_the_next_connection(
    backends: Backends, https: ProbeSpec, authority: trustme.CA, tmp_path: Path
) -> None:
    context = server_context(authority.issue_cert("127.0.0.1"))
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    server = await backends.serve_http(context=context)
    pem = tmp_path / "client.pem"
    trustme.CA().issue_cert("revip").private_key_and_cert_chain_pem.write_to_path(str(pem))
    probe = backends.probe(server.port, replace(https, client_certificate=pem))
    assert (await probe.ask(fresh=False)).finding is not Finding.READY
    authority.issue_cert("revip").private_key_and_cert_chain_pem.write_to_path(str(pem))
    assert (await probe.ask(fresh=False)).finding is Finding.READY


async def test_an_unchanged_context_is_built_once_for_all_probes(
    backends: Backends, https: ProbeSpec, serving: ssl.SSLContext
) -> None:
    server = await backends.serve_http(context=serving)
    probes = [backends.probe(server.port, https) for _ in range(3)]
    contexts = set()
    for probe in probes:
        await probe.ask(fresh=False)
        contexts.add(id(probe._opener._trust.get().context))  # type: ignore[attr-defined]
    assert len(contexts) == 1


@pytest.mark.parametrize("content", ["", "not a certificate", "-----BEGIN CERTIFICATE-----\n\xff"])
async def test_a_ca_that_is_not_pem_is_our_fault(
    backends: Backends, https: ProbeSpec, serving: ssl.SSLContext, tmp_path: Path, content: str
) -> None:
    ca = tmp_path / "ca.crt"
    ca.write_text(content)
    server = await backends.serve_http(context=serving)
    result = await backends.probe(server.port, replace(https, ca=ca)).ask(fresh=False)
    assert (result.finding, result.reason) == (Finding.OURS, f"ca {ca} holds no PEM certificate")


async def test_a_folder_in_place_of_a_file_is_our_fault(
    backends: Backends, https: ProbeSpec, serving: ssl.SSLContext, tmp_path: Path
) -> None:
    server = await backends.serve_http(context=serving)
    result = await backends.probe(server.port, replace(https, ca=tmp_path)).ask(fresh=False)
    assert result.finding is Finding.OURS
    assert "Is a directory" in result.reason


async def test_half_a_rotation_is_our_fault_until_the_other_half_comes(
    backends: Backends, https: ProbeSpec, authority: trustme.CA, tmp_path: Path
) -> None:
    context = server_context(authority.issue_cert("127.0.0.1"))
    server = await backends.serve_http(context=context)
    certificate, other = authority.issue_cert("revip"), authority.issue_cert("revip")
    chain, key = tmp_path / "client.crt", tmp_path / "client.key"
    certificate.cert_chain_pems[0].write_to_path(str(chain))
    other.private_key_pem.write_to_path(str(key))
    spec = replace(https, client_certificate=chain, client_key=key)
    probe = backends.probe(server.port, spec)
    result = await probe.ask(fresh=False)
    assert result.finding is Finding.OURS
    assert result.reason == f"client_certificate {chain} does not belong to the key in {key}"
    certificate.private_key_pem.write_to_path(str(key))
    assert (await probe.ask(fresh=False)).finding is Finding.READY


async def test_an_encrypted_key_is_our_fault_and_asks_nobody_for_a_password(
    backends: Backends,
    https: ProbeSpec,
    serving: ssl.SSLContext,
    authority: trustme.CA,
    tmp_path: Path,
) -> None:
    issued = authority.issue_cert("revip")
    chain, key = tmp_path / "client.crt", tmp_path / "client.key"
    issued.cert_chain_pems[0].write_to_path(str(chain))
    plain = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    secret = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    key.write_bytes(plain.private_bytes(serialization.Encoding.PEM, form, secret))
    server = await backends.serve_http(context=serving)
    spec = replace(https, client_certificate=chain, client_key=key)
    result = await backends.probe(server.port, spec).ask(fresh=False)
    assert result.finding is Finding.OURS
    assert result.reason.endswith(f"its key in {key} are not an unencrypted PEM pair")


def test_the_end_of_our_certificate_is_known(authority: trustme.CA, tmp_path: Path) -> None:
    issued = authority.issue_cert("revip")
    pem = tmp_path / "client.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(pem))
    trust = load_trust(TrustSetting(verify=False, ca=None, client_certificate=pem, client_key=None))
    expected = x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())
    assert trust.client_expires == expected.not_valid_after_utc.timestamp()
