"""How errors become findings and words, without a network."""

from __future__ import annotations

import errno
import os
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from revip.adapters.probes import certificate
from revip.adapters.probes.outcome import REASON_MAX, Progress, Stage, one_line, sort
from revip.model.health import Finding, HealthTiming

TIMING = HealthTiming()


def os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


@pytest.mark.parametrize(
    "code",
    [
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EADDRNOTAVAIL,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.EACCES,
        errno.EPERM,
    ],
)
def test_errors_of_this_host_say_nothing_about_the_backend(code: int) -> None:
    finding, reason = sort(os_error(code), Progress(), TIMING)
    assert finding is Finding.OURS
    assert reason.endswith(f"({errno.errorcode[code]})")


@pytest.mark.parametrize(
    ("code", "progress", "words"),
    [
        (errno.EHOSTUNREACH, Progress(), "host unreachable"),
        (errno.ETIMEDOUT, Progress(), "no answer to the TCP handshake"),
        (errno.ETIMEDOUT, Progress(Stage.HTTP, held=True), "nothing acknowledged for 300 ms"),
        (errno.ECONNRESET, Progress(Stage.TLS), "connection reset during the TLS handshake"),
        (errno.ECONNRESET, Progress(Stage.HTTP, heard=b"H"), "reset in the middle of the answer"),
        (errno.ECONNREFUSED, Progress(Stage.HTTP), "Connection refused before an answer"),
    ],
)
def test_errors_of_the_backend_are_failures(code: int, progress: Progress, words: str) -> None:
    finding, reason = sort(os_error(code), progress, TIMING)
    assert finding is Finding.FAILED
    assert words in reason


def test_an_unknown_tls_error_is_a_failure_in_its_own_words() -> None:
    error = ssl.SSLError(1, "[SSL: SOMETHING_NEW] something new")
    finding, reason = sort(error, Progress(Stage.TLS), TIMING)
    assert finding is Finding.FAILED
    assert "something new" in reason


@settings(deadline=None)
@given(st.text())
def test_words_from_outside_are_one_short_clean_line(text: str) -> None:
    line = one_line(text)
    assert len(line) <= REASON_MAX
    assert line.isprintable()


def test_many_names_are_cut() -> None:
    names = tuple(("DNS", f"n{number}") for number in range(9))
    text = certificate.detailed_failure(62, {"subjectAltName": names}, "n10")
    assert text == "certificate is for n0, n1, n2, n3, n4, n5 and 3 more, not n10"


def test_a_certificate_without_names_is_told_so() -> None:
    text = certificate.detailed_failure(64, {}, "10.0.1.19")
    assert text == "certificate is for no name at all (it has no subjectAltName), not 10.0.1.19"


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_what_is_no_certificate_is_a_value_error_and_nothing_else(octets: bytes) -> None:
    with pytest.raises(ValueError):
        certificate.not_after(octets)


@pytest.mark.parametrize("year", [1999, 2049, 2050, 9999])
def test_both_forms_of_time_are_read(year: int) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    end = datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC)
    name = x509.Name([])
    builder = x509.CertificateBuilder(
        issuer_name=name, subject_name=name, public_key=key.public_key(), serial_number=1
    )
    issued = (
        builder.not_valid_before(end - timedelta(days=365))
        .not_valid_after(end)
        .sign(key, hashes.SHA256())
    )
    der = issued.public_bytes(serialization.Encoding.DER)
    assert certificate.not_after(der) == end.timestamp()
