"""Keys of the HTTP endpoint."""

from __future__ import annotations

from pathlib import Path

from revip.config import kinds
from revip.config.keys.key import Key, Section
from revip.model.http import Listen


class Http:
    """Keys of the HTTP endpoint."""

    LISTEN: Key[Listen | None] = Key(
        "listen",
        kinds.LISTEN,
        "Where metrics, status, events and the page are served; `off` is nowhere.  Beyond loopback"
        " it needs a certificate, and a token or client certificates.",
        "127.0.0.1:2112",
    )
    CERTIFICATE: Key[Path] = Key(
        "tls_certificate",
        kinds.PATH,
        "PEM file of the server's certificate; read again when it changes.",
        absent="no TLS",
    )
    KEY: Key[Path] = Key("tls_key", kinds.PATH, "PEM file of its key, not encrypted.")
    CLIENT_CA: Key[Path] = Key(
        "client_ca", kinds.PATH, "PEM file of the authorities whose clients may read."
    )
    TOKEN: Key[Path] = Key(
        "token_file",
        kinds.PATH,
        "File with the bearer token that lets a client read; read again when it changes.",
    )


HTTP = Section(
    "http",
    "REVIP_HTTP_",
    "The HTTP endpoint, see [http.md](http.md).  It only tells; nothing can be changed by it.",
    (Http.LISTEN, Http.CERTIFICATE, Http.KEY, Http.CLIENT_CA, Http.TOKEN),
)
