"""Reads the section `http`, and judges who could reach the endpoint and read along."""

from __future__ import annotations

from pathlib import Path

from revip.config.keys import HTTP, Http, Key
from revip.config.reader import Reader
from revip.model.http import HttpSpec


def read_http(reader: Reader) -> HttpSpec:
    """Return what the section says; what is wrong with it is blamed."""
    usual = HttpSpec()
    spec = HttpSpec(
        listen=reader.get(Http.LISTEN, usual.listen),
        certificate=reader.get(Http.CERTIFICATE, None),
        key=reader.get(Http.KEY, None),
        client_ca=reader.get(Http.CLIENT_CA, None),
        token_file=reader.get(Http.TOKEN, None),
    )
    if spec.listen is None:
        _judge_unused(reader)
    else:
        _judge_tls(reader, spec)
        _judge_reach(reader, spec, loopback=spec.listen.address.is_loopback)
    return spec


def _judge_unused(reader: Reader) -> None:
    for key in HTTP.keys:
        if key.name != Http.LISTEN.name and reader.given(key):
            reader.warn(key, "is not used, as listen is off")


def _judge_tls(reader: Reader, spec: HttpSpec) -> None:
    pair = (Http.CERTIFICATE, Http.KEY)
    if spec.certificate and not spec.key:
        reader.rule(pair, True, "needs tls_key beside it")
    if spec.key and not spec.certificate:
        reader.rule(pair, True, "needs tls_certificate beside it")
    if spec.client_ca and not (spec.certificate or reader.given(Http.CERTIFICATE)):
        mend = "needs TLS: write tls_certificate and tls_key beside it"
        reader.rule((Http.CLIENT_CA, *pair), True, mend)


def _judge_reach(reader: Reader, spec: HttpSpec, *, loopback: bool) -> None:
    if loopback:
        return
    keys: tuple[Key[object], ...] = (
        Http.LISTEN,
        Http.TOKEN,
        Http.CLIENT_CA,
        Http.CERTIFICATE,
        Http.KEY,
    )
    if not spec.guarded:
        mend = (
            "is not loopback, so anybody could read it: write token_file or client_ca beside it,"
            " or listen on 127.0.0.1:2112"
        )
        reader.rule(keys, True, mend)
    elif spec.certificate is None and spec.key is None:
        mend = (
            "is not loopback, and the token would go over it in clear: write tls_certificate and"
            " tls_key beside it, or listen on 127.0.0.1:2112"
        )
        reader.rule(keys, True, mend)


def named_files(spec: HttpSpec) -> tuple[tuple[Key[Path], Path | None], ...]:
    """Return the files that the section names, by key: authorities, certificate, key, token."""
    if spec.listen is None:
        return ()
    return (
        (Http.CLIENT_CA, spec.client_ca),
        (Http.CERTIFICATE, spec.certificate),
        (Http.KEY, spec.key),
        (Http.TOKEN, spec.token_file),
    )
