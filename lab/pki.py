"""The lab's certificates: one CA, one server certificate per node, and the bad ones beside it.

Files in the directory: `ca.pem`; `NODE.pem` and `NODE.key`; for each `Variant` of it
`NODE.VARIANT.pem` and `NODE.VARIANT.key`; the same for the client, whose name is `client`.
Elliptic-curve keys, since the lab makes some twenty of them at each run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import trustme

IPAddress = IPv4Address | IPv6Address

CLIENT = "client"
KUBERNETES_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)
"""What kubeadm puts into an API server's certificate, and `localhost`."""
EXPIRES_SOON = timedelta(hours=1)
"""Lifetime left of `Variant.EXPIRING`."""


class Variant(Enum):
    """How a certificate is wrong, if it is."""

    VALID = ""
    EXPIRED = "expired"
    """Ended two days ago."""
    EXPIRING = "expiring"
    """Valid, for another `EXPIRES_SOON`."""
    WRONG_CA = "wrong-ca"
    """The right names, signed by a CA that nobody trusts."""
    WRONG_NAME = "wrong-name"
    """Signed by the CA, for another host."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate chain and its private key, both PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Pki:
    """The files that `make` wrote."""

    directory: Path

    @property
    def ca(self) -> Path:
        """The CA certificate that clients trust."""
        return self.directory / "ca.pem"

    def server(self, node: str, variant: Variant = Variant.VALID) -> KeyPair:
        """Return the files of `node`'s server certificate."""
        stem = f"{node}.{variant.value}" if variant.value else node
        return KeyPair(self.directory / f"{stem}.pem", self.directory / f"{stem}.key")

    def client(self, variant: Variant = Variant.VALID) -> KeyPair:
        """Return the files of the client certificate (user `revip`)."""
        return self.server(CLIENT, variant)


def make(
    directory: Path,
    nodes: Mapping[str, Iterable[IPAddress]],
    vips: Iterable[IPAddress],
) -> Pki:
    """Write the CA and all certificates of `nodes` into `directory`, which is made if missing.

    Each node's certificate names its own addresses, every VIP and `KUBERNETES_NAMES`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    pki = Pki(directory)
    ca, stranger = _authority(), _authority()
    ca.cert_pem.write_to_path(str(pki.ca))
    shared = [*map(str, vips), *KUBERNETES_NAMES]
    names = {node: [node, *map(str, addresses), *shared] for node, addresses in nodes.items()}
    for node, identities in {**names, CLIENT: ["revip"]}.items():
        for variant in Variant:
            issuer = stranger if variant is Variant.WRONG_CA else ca
            subject = ["elsewhere.example"] if variant is Variant.WRONG_NAME else identities
            _issue(issuer, subject, variant, pki.server(node, variant))
    return pki


def _authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA, organization_name="revip lab")


def _issue(issuer: trustme.CA, names: list[str], variant: Variant, files: KeyPair) -> None:
    now = datetime.now(UTC)
    begin, end = now - timedelta(days=90), now + timedelta(days=365)
    if variant is Variant.EXPIRED:
        end = now - timedelta(days=2)
    if variant is Variant.EXPIRING:
        end = now + EXPIRES_SOON
    leaf = issuer.issue_cert(
        *names,
        common_name=names[0],
        not_before=begin,
        not_after=end,
        key_type=trustme.KeyType.ECDSA,
    )
    leaf.private_key_pem.write_to_path(str(files.key))
    files.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
