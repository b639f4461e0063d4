"""Where the HTTP endpoint may listen, and what is said when it may not."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest
import trustme

from revip.model.http import HttpSpec, Listen
from revip.model.ipvs import Port
from tests.config.conftest import GOOD, Asker, Loader


def http(*lines: str) -> str:
    return GOOD + "http:\n" + "".join(f"  {line}\n" for line in lines)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    authority = trustme.CA()
    issued = authority.issue_cert("10.0.1.16")
    found = {name: tmp_path / name for name in ("crt", "key", "ca", "token")}
    found["crt"].write_bytes(issued.cert_chain_pems[0].bytes())
    found["key"].write_bytes(issued.private_key_pem.bytes())
    found["key"].chmod(0o600)
    authority.cert_pem.write_to_path(found["ca"])
    found["token"].write_text("secret\n")
    found["token"].chmod(0o600)
    return found


def tls(files: dict[str, Path]) -> tuple[str, str]:
    return f"tls_certificate: {files['crt']}", f"tls_key: {files['key']}"


def test_it_listens_on_loopback_when_nothing_is_said(spec_of: Loader) -> None:
    spec = spec_of(GOOD)
    assert spec.http == HttpSpec(Listen(ip_address("127.0.0.1"), Port(2112)))
    assert spec.warnings == ()


@pytest.mark.parametrize("off", ["off", '"off"', "false"])
def test_it_can_be_off(spec_of: Loader, off: str) -> None:
    assert spec_of(http(f"listen: {off}")).http.listen is None


def test_what_is_off_uses_no_token(spec_of: Loader, files: dict[str, Path]) -> None:
    spec = spec_of(http("listen: off", f"token_file: {files['token']}"))
    (warning,) = spec.warnings
    assert "http.token_file" in warning
    assert warning.endswith("is not used, as listen is off")


@pytest.mark.parametrize("place", ["127.0.0.1:9100", "127.9.9.9:1", '"[::1]:65535"'])
def test_loopback_needs_nothing_else(spec_of: Loader, place: str) -> None:
    assert str(spec_of(http(f"listen: {place}")).http.listen) == place.strip('"')


@pytest.mark.parametrize("place", ["0.0.0.0:2112", "10.0.1.16:2112", '"[::]:2112"'])
def test_beyond_loopback_nobody_may_read_who_shows_nothing(
    problems_of: Asker, files: dict[str, Path], place: str
) -> None:
    for lines in ((), tls(files)):
        (problem,) = problems_of(http(f"listen: {place}", *lines))
        assert problem.key == "http.listen"
        assert problem.mend.startswith("is not loopback, so anybody could read it: write token_")


def test_a_token_does_not_go_in_clear(problems_of: Asker, files: dict[str, Path]) -> None:
    (problem,) = problems_of(http("listen: 0.0.0.0:2112", f"token_file: {files['token']}"))
    assert problem.key == "http.listen"
    assert "the token would go over it in clear: write tls_certificate and" in problem.mend


@pytest.mark.parametrize("guard", ["token", "ca"])
def test_with_tls_and_a_token_or_client_certificates_it_may_be_exposed(
    spec_of: Loader, files: dict[str, Path], guard: str
) -> None:
    key = "token_file" if guard == "token" else "client_ca"
    spec = spec_of(http("listen: 0.0.0.0:2112", *tls(files), f"{key}: {files[guard]}"))
    assert spec.http.guarded
    assert spec.warnings == ()


def test_a_key_and_a_certificate_belong_together(
    problems_of: Asker, files: dict[str, Path]
) -> None:
    for line, other in zip(tls(files), ("tls_key", "tls_certificate"), strict=True):
        (problem,) = problems_of(http("listen: 127.0.0.1:1", line))
        assert problem.mend == f"needs {other} beside it"


def test_client_certificates_need_tls(problems_of: Asker, files: dict[str, Path]) -> None:
    (problem,) = problems_of(http(f"client_ca: {files['ca']}"))
    assert problem.mend == "needs TLS: write tls_certificate and tls_key beside it"


def test_the_files_are_looked_at(problems_of: Asker, files: dict[str, Path]) -> None:
    files["token"].write_text("")
    files["key"].write_text("no key\n")
    lines = ("listen: 0.0.0.0:1", *tls(files), f"token_file: {files['token']}")
    problems = problems_of(http(*lines))
    assert {problem.key for problem in problems} == {"http.tls_certificate", "http.token_file"}


@pytest.mark.parametrize(
    ("value", "mend"),
    [
        ("2112", "is not an address and port"),
        ("localhost:2112", "is not an address and port"),
        ('":2112"', "is not an address and port"),
        ('"::1:2112"', "is not an address and port"),
        ("127.0.0.1", "is not an address and port"),
        ("127.0.0.1:0", "has no port from 1 to 65535"),
        ("127.0.0.1:65536", "has no port from 1 to 65535"),
        ("127.0.0.1:http", "has no port from 1 to 65535"),
        ("[]", "must be an address and port, or off, not a list of 0"),
        ("", "is empty"),
    ],
)
def test_what_is_no_place_to_listen_is_said_in_one_line(
    problems_of: Asker, value: str, mend: str
) -> None:
    (problem,) = problems_of(http(f"listen: {value}"))
    assert (problem.key, problem.mend[: len(mend)]) == ("http.listen", mend)


def test_variables_set_it_too(spec_of: Loader) -> None:
    assert spec_of(GOOD, {"REVIP_HTTP_LISTEN": "off"}).http.listen is None
    spec = spec_of(GOOD, {"REVIP_HTTP_LISTEN": "[::1]:99"})
    assert str(spec.http.listen) == "[::1]:99"
