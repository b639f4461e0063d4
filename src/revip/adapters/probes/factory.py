"""Makes the probe of a backend; the one place where a probe's kind is chosen."""

from __future__ import annotations

from collections.abc import Callable

from revip.adapters.probes.connection import Endpoint
from revip.adapters.probes.files import Rereading
from revip.adapters.probes.held import HeldConnection
from revip.adapters.probes.http import HttpProbe, PlainOpener
from revip.adapters.probes.tcp import TcpProbe
from revip.adapters.probes.tls import TlsClient, Trust, TrustSetting, load_trust
from revip.model.health import Backend, HealthTiming
from revip.model.spec import ProbeKind, ProbeSpec
from revip.ports import BackendProbe, Clock, ProbeFactory


class _Probes:
    """Probes that share one TLS context per trust setting."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._trusts: dict[TrustSetting, Rereading[Trust]] = {}

    def __call__(
        self,
        backend: Backend,
        spec: ProbeSpec,
        timing: HealthTiming,
        lost: Callable[[str], None],
    ) -> BackendProbe:
        """See ProbeFactory."""
        endpoint = Endpoint(backend.address, spec.port or backend.port)
        held = HeldConnection(self._clock, lost)
        match spec.kind:
            case ProbeKind.TCP:
                return TcpProbe(self._clock, endpoint, timing, held, spec.held)
            case ProbeKind.HTTP:
                opener = PlainOpener(endpoint)
                return HttpProbe(self._clock, endpoint, opener, spec, timing, held)
            case ProbeKind.HTTPS:
                setting = TrustSetting.of(spec)
                client = TlsClient(self._trust(setting), setting, endpoint, spec.server_name)
                return HttpProbe(self._clock, endpoint, client, spec, timing, held)

    def _trust(self, setting: TrustSetting) -> Rereading[Trust]:
        if setting not in self._trusts:
            self._trusts[setting] = Rereading(setting.files(), lambda: load_trust(setting))
        return self._trusts[setting]


def probe_factory(clock: Clock) -> ProbeFactory:
    """Return a factory of probes that measure their latency by `clock`."""
    return _Probes(clock)
