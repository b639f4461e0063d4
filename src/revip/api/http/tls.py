"""The server's side of TLS, with a certificate that may be replaced while it runs."""

from __future__ import annotations

import os
import ssl

from revip.errors import TransientError
from revip.model.http import HttpSpec


class Certificate:
    """The TLS context of the endpoint."""

    def __init__(self, spec: HttpSpec) -> None:
        self._spec = spec
        self._stamp: object = None
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext | None:
        """Return the context, with the files as they are now; None is no TLS.

        Raises `TransientError` when they cannot be used; those that could be once go on.
        """
        if self._spec.certificate is None or self._spec.key is None:
            return None
        try:
            if (stamp := self._look()) != self._stamp:
                self._context = self._load()
                self._stamp = stamp
        except (OSError, ssl.SSLError, ValueError) as error:
            if self._context is None:
                reason = getattr(error, "strerror", None) or str(error)
                text = f"{self._spec.certificate} cannot be used: {reason}"
                raise TransientError(text) from error
        return self._context

    def _look(self) -> object:
        files = (self._spec.certificate, self._spec.key, self._spec.client_ca)
        found = [os.stat(file) for file in files if file is not None]  # noqa: PTH116
        return tuple((each.st_mtime_ns, each.st_ino, each.st_size) for each in found)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._spec.certificate is not None:
            context.load_cert_chain(self._spec.certificate, self._spec.key, _no_password)
        if self._spec.client_ca is not None:
            context.load_verify_locations(self._spec.client_ca)
            # Optional, as the kubelet probes /livez without one, and a token does, too.
            context.verify_mode = ssl.CERT_OPTIONAL
        return context


def _no_password() -> str:
    raise ValueError("its key is encrypted")
