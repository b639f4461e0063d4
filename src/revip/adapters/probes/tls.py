"""Trust: TLS contexts, built once per setting and again when one of their files is replaced."""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from revip.adapters.probes import certificate
from revip.adapters.probes.connection import Connection, Endpoint, attach, connect
from revip.adapters.probes.files import Rereading, read, unfit
from revip.adapters.probes.outcome import FailedProbe, Progress, Stage
from revip.model.health import CertificateEnds, Finding, HealthTiming
from revip.model.spec import ProbeSpec

_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of openssl/x509_vfy.h; the ssl module has no name for it."""


@dataclass(frozen=True, slots=True)
class TrustSetting:
    """What makes one TLS context differ from another."""

    verify: bool
    ca: Path | None
    client_certificate: Path | None
    client_key: Path | None

    @classmethod
    def of(cls, spec: ProbeSpec) -> TrustSetting:
        """Return the part of `spec` that a context is made of."""
        return cls(spec.verify, spec.ca, spec.client_certificate, spec.client_key)

    @property
    def authority(self) -> str:
        """Whom we trust, in words."""
        return str(self.ca or "the system's trust store")

    def files(self) -> dict[str, Path]:
        """Return the files to watch, by configuration key."""
        ca = self.ca if self.verify else None
        named = {
            "ca": ca,
            "client_certificate": self.client_certificate,
            "client_key": self.client_key,
        }
        return {key: path for key, path in named.items() if path is not None}


@dataclass(frozen=True, slots=True)
class Trust:
    """A context, and until when the client certificate in it is valid."""

    context: ssl.SSLContext
    client_expires: float | None = None
    """Seconds of the epoch; None without a client certificate."""


def load_trust(setting: TrustSetting) -> Trust:
    """Build the context of `setting`; raises FailedProbe (ours) that names an unfit file."""
    context = _bare_context()
    # Any certificate in the bundle is trusted as it stands, as Go's crypto/x509 does it: an
    # intermediate, or the very certificate of the server.
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    if not setting.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        _load_authority(context, setting)
    if setting.client_certificate is None:
        return Trust(context)
    return Trust(context, _load_client(context, setting.client_certificate, setting.client_key))


def _bare_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load_authority(context: ssl.SSLContext, setting: TrustSetting) -> None:
    if setting.ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return
    pem = read("ca", setting.ca)
    try:
        context.load_verify_locations(cadata=pem.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as error:
        raise unfit("ca", setting.ca, "holds no PEM certificate") from error


def _load_client(context: ssl.SSLContext, chain: Path, key: Path | None) -> float | None:
    pem = read("client_certificate", chain)
    if key is not None:
        read("client_key", key)
    try:
        # Without a password OpenSSL would ask for one on the terminal and stop the whole agent.
        context.load_cert_chain(chain, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            why = f"does not belong to the key in {key or chain}"
        else:
            why = f"and its key in {key or chain} are not an unencrypted PEM pair"
        raise unfit("client_certificate", chain, why) from error
    try:
        begin = pem.index(b"-----BEGIN CERTIFICATE-----")
        end = pem.index(b"-----END CERTIFICATE-----") + len(b"-----END CERTIFICATE-----")
        return certificate.not_after(ssl.PEM_cert_to_DER_cert(pem[begin:end].decode("ascii")))
    except ValueError:
        return None  # OpenSSL took it, in a form that we do not read: no date to warn about


class TlsClient:
    """Secures connections to one endpoint under one name."""

    def __init__(
        self, trust: Rereading[Trust], setting: TrustSetting, endpoint: Endpoint, name: str | None
    ) -> None:
        self._trust = trust
        self._setting = setting
        self._endpoint = endpoint
        self._name = name or endpoint.host
        self._last_failure: tuple[int, str] | None = None
        self._ends = CertificateEnds()

    async def open(self, timing: HealthTiming, progress: Progress) -> Connection:
        """Connect and finish the TLS handshake; raises OSError, FailedProbe or ValueError.

        The connection comes first: a credential of ours that cannot be read must not hide that
        nobody listens.
        """
        progress.stage = Stage.CONNECT
        sock = await connect(self._endpoint, timing)
        progress.stage = Stage.TLS
        try:
            trust = self._trust.get()
        except FailedProbe:
            sock.close()
            raise
        try:
            connection = await attach(sock, trust.context, self._name)
        except ssl.SSLCertVerificationError as error:
            raise FailedProbe(
                Finding.FAILED, await self._explain(error, timing, progress)
            ) from error
        await _hear_refusal(connection)
        self._last_failure = None
        backend = certificate.expiry(connection.peer_certificate)
        self._ends = CertificateEnds(backend, trust.client_expires)
        return connection

    def certificates(self) -> CertificateEnds:
        """Return the ends of the certificates of the connection that was opened last."""
        return self._ends

    def expiry_note(self) -> str:
        """Return a note when the backend's certificate or ours is about to expire."""
        now = time.time()
        ours = certificate.expiry_note("our client certificate", self._ends.client, now)
        return certificate.expiry_note("certificate", self._ends.backend, now) + ours

    async def _explain(
        self, error: ssl.SSLCertVerificationError, timing: HealthTiming, progress: Progress
    ) -> str:
        """Say what is wrong with the certificate, by a second look when that can tell more.

        The ssl module does not give out a certificate that was not accepted.  The look is taken
        once for a run of equal failures, within the deadline of the probe.
        """
        code = error.verify_code
        reason = certificate.failure(code, error.verify_message, self._setting.authority)
        if code not in certificate.WORTH_A_LOOK:
            return reason
        if self._last_failure is not None and self._last_failure[0] == code:
            return self._last_failure[1]
        progress.known = reason
        seen = await self._look(timing)
        reason = certificate.detailed_failure(code, seen, self._name) or reason
        self._last_failure = (code, reason)
        return reason

    async def _look(self, timing: HealthTiming) -> ssl._PeerCertRetDictType:
        """Return the certificate that the endpoint shows, whatever its date and names.

        Its signature is still verified, we present nothing of ours, and nothing is sent.
        """
        context = _bare_context()
        _load_authority(context, self._setting)
        context.check_hostname = False
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        context.verify_flags |= _NO_CHECK_TIME
        try:
            async with asyncio.timeout(timing.connect_timeout / 1000):
                connection = await attach(
                    await connect(self._endpoint, timing), context, self._name
                )
        except (OSError, FailedProbe):
            return {}
        seen = connection.peer_certificate
        connection.abort()
        return seen


async def _hear_refusal(connection: Connection) -> None:
    """Give a refusal that is there already the time to be read.

    In TLS 1.3 the server judges our certificate after we are done (RFC 8446, section 4.4.2), and
    says no by an alert followed by a reset.  A write into the reset would lose the alert, and
    with it the reason; in two turns the loop polls the socket and then reads it.
    """
    try:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    except BaseException:
        connection.abort()
        raise
