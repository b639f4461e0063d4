"""The files that are named: present, readable, what they should be, and fitting each other."""

from __future__ import annotations

import os
import ssl

from revip.config.files import file_mode, read_file
from revip.config.parse import NamedFile, ProbeFiles
from revip.config.reader import Findings
from revip.errors import ConfigError

OTHERS = 0o007
"""Mode bits of everybody else (inode(7))."""


def inspect(files: ProbeFiles, findings: Findings) -> None:
    """Look at every file of one probe; what is wrong goes to `findings`.

    Never quotes what a file holds.
    """
    ca = _text(files.ca, findings)
    if files.ca and ca is not None:
        _authorities(files.ca, ca, findings)
    certificate, key = _text(files.certificate, findings), _text(files.key, findings)
    if files.certificate and files.key and certificate is not None and key is not None:
        _pair(files.certificate, files.key, findings)
    token = _text(files.token, findings)
    if files.token and token is not None:
        _token(files.token, token, findings)
    for secret in filter(None, (files.key, files.token)):
        if (file_mode(secret.path) or 0) & OTHERS:
            remark = f"everybody on this host may read it: chmod o= {secret.path}"
            findings.warnings.append(str(secret.place.problem(remark)))


def inspect_program(program: NamedFile, findings: Findings) -> None:
    """Look whether there is a program that can be started."""
    if not program.path.is_file():
        _blame(program, f"names no program: {program.path} is not there", findings)
    elif not os.access(program.path, os.X_OK):
        _blame(program, f"cannot be started: chmod +x {program.path}", findings)


def _text(file: NamedFile | None, findings: Findings) -> str | None:
    if file is None:
        return None
    try:
        return read_file(file.path)
    except ConfigError as error:
        findings.problems.extend(file.place.problem(each.mend) for each in error.problems)
        return None


def _authorities(file: NamedFile, text: str, findings: Findings) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        _blame(file, "holds no PEM certificate (-----BEGIN CERTIFICATE-----)", findings)


def _pair(certificate: NamedFile, key: NamedFile, findings: Findings) -> None:
    asked: list[bool] = []

    def password() -> str:
        asked.append(True)
        return ""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_cert_chain(certificate.path, key.path, password)
    except ssl.SSLError as error:
        if asked:
            _blame(key, "is encrypted: revip has nobody to ask for the password", findings)
        elif error.reason == "KEY_VALUES_MISMATCH":
            _blame(key, f"is not the key of {certificate.path}", findings)
        else:
            pair = f"{certificate.path} must hold a PEM certificate and {key.path} its PEM key"
            _blame(certificate, f"cannot be used: {pair}", findings)


def _token(file: NamedFile, text: str, findings: Findings) -> None:
    token = text.strip()
    if not token:
        _blame(file, "is an empty file: put the bearer token into it", findings)
    elif not token.isascii() or not token.isprintable() or " " in token:
        _blame(file, "does not hold a bearer token: one line of ASCII without blanks", findings)


def _blame(file: NamedFile, mend: str, findings: Findings) -> None:
    findings.problems.append(file.place.problem(mend))
