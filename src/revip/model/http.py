"""Where and for whom the HTTP endpoint answers."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from revip.model.ipvs import IPAddress, Port, at


@dataclass(frozen=True, slots=True)
class Listen:
    """An address and a port to listen on."""

    address: IPAddress
    port: Port

    def __str__(self) -> str:
        return at(self.address, self.port)


@dataclass(frozen=True, slots=True)
class HttpSpec:
    """The endpoint for metrics, status, events and the page.

    What is not on loopback is encrypted and asks who it is: the config refuses anything else.
    """

    listen: Listen | None = Listen(IPv4Address("127.0.0.1"), Port(2112))
    """None is no endpoint at all.  2112 is kube-vip's `prometheus_server` port."""
    certificate: Path | None = None
    """PEM chain; with it every connection is TLS."""
    key: Path | None = None
    client_ca: Path | None = None
    """PEM bundle: who shows a certificate of it may read."""
    token_file: Path | None = None
    """Who shows this bearer token may read; read again when the file changes."""

    @property
    def guarded(self) -> bool:
        """Whether a caller must show who it is."""
        return self.client_ca is not None or self.token_file is not None
