"""Certificates in words: until when, for whom, and what is wrong with one."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

EXPIRY_NOTICE_DAYS = 14
"""From this many days before its end on, a certificate's expiry is part of the reason."""

DAY = 86_400

NOT_YET_VALID = 9
HAS_EXPIRED = 10
SELF_SIGNED = frozenset({18, 19})
UNKNOWN_ISSUER = frozenset({2, 20, 21, 27})
NAME_MISMATCH = frozenset({62, 63, 64})
"""X509_V_ERR_* of openssl/x509_vfy.h, X509_STORE_CTX_get_error(3)."""

WORTH_A_LOOK = frozenset({NOT_YET_VALID, HAS_EXPIRED}) | NAME_MISMATCH
"""Failures whose reason can name a date or a name that only the certificate tells."""


def failure(code: int, message: str, authority: str) -> str:
    """Say in short what verification found, without having seen the certificate."""
    if code == HAS_EXPIRED:
        return "certificate has expired"
    if code == NOT_YET_VALID:
        return "certificate is not yet valid: compare the clocks"
    if code in SELF_SIGNED | UNKNOWN_ISSUER:
        return f"certificate signed by unknown authority (ca: {authority})"
    if code in NAME_MISMATCH:
        return "certificate is for another name"
    return f"certificate not accepted: {message}"


def detailed_failure(code: int, certificate: ssl._PeerCertRetDictType, expected: str) -> str | None:
    """Say what is wrong with `certificate`, with its date or names; None when it does not tell."""
    if code == HAS_EXPIRED and "notAfter" in certificate:
        return f"certificate has expired on {_day(str(certificate['notAfter']))}"
    if code == NOT_YET_VALID and "notBefore" in certificate:
        begin = _day(str(certificate["notBefore"]))
        return f"certificate is not valid before {begin}: compare the clocks"
    if code in NAME_MISMATCH:
        return f"certificate is for {_names(certificate)}, not {expected}"
    return None


def expiry(certificate: ssl._PeerCertRetDictType) -> float | None:
    """Return the end of validity in seconds of the epoch; None for an unverified certificate."""
    end = certificate.get("notAfter")
    return None if end is None else ssl.cert_time_to_seconds(str(end))


def expiry_note(whose: str, end: float | None, now: float) -> str:
    """Return `; WHOSE expires in 3 d` when that is near (`now` in seconds of the epoch)."""
    if end is None or end - now >= EXPIRY_NOTICE_DAYS * DAY:
        return ""
    if end <= now:
        return f"; {whose} has expired"
    days = int((end - now) // DAY)
    return f"; {whose} expires in {days} d" if days else f"; {whose} expires today"


def not_after(der: bytes) -> float:
    """Return the end of validity of a DER certificate, in seconds of the epoch.

    Walks only as far as RFC 5280, section 4.1 says validity is: the ssl module decodes
    certificates of the other side, not our own.  Raises ValueError for what is none.
    """
    _, tbs, _ = _element(der, _element(der, 0)[1])
    tag, _, after = _element(der, tbs)
    serial_at = after if tag == 0xA0 else tbs  # the version is optional
    at = serial_at
    for _ in ("serialNumber", "signature", "issuer"):
        at = _element(der, at)[2]
    _, validity, _ = _element(der, at)
    _, _, end_at = _element(der, validity)
    tag, start, end = _element(der, end_at)
    text = der[start:end].decode("ascii")
    if tag == 0x17:  # UTCTime: two digits of the year, 50 to 99 are 19xx
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Return tag, start and end of the content of the element at `at` (X.690, section 8.1)."""
    if at + 2 > len(der):
        raise ValueError("certificate cut short")
    tag, length, start = der[at], der[at + 1], at + 2
    if length & 0x80:
        octets = length & 0x7F
        length = int.from_bytes(der[start : start + octets], "big")
        start += octets
    if start + length > len(der):
        raise ValueError("certificate cut short")
    return tag, start, start + length


def _day(text: str) -> str:
    return f"{datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC):%Y-%m-%d}"


def _names(certificate: ssl._PeerCertRetDictType) -> str:
    names = [str(entry[1]) for entry in certificate.get("subjectAltName", ())]
    if not names:
        return "no name at all (it has no subjectAltName)"
    shown = names[:6]
    return ", ".join(shown) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
