"""Virtual servers in our words and in ipvsadm's: the table that test_ipvs.py goes through."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from revip.model.ipvs import (
    Destination,
    Forwarding,
    Port,
    Protocol,
    SchedulerFlag,
    ServiceKey,
    TunnelType,
    VirtualServer,
)

VIP = ServiceKey(IPv4Address("10.0.1.10"), Port(6443))
VIP6 = ServiceKey(IPv6Address("fd00::10"), Port(6443))
DNS = ServiceKey(IPv4Address("10.0.1.10"), Port(53), Protocol.UDP)
MARK = ServiceKey(IPv4Address(0), Port(0), fwmark=7)
MARK6 = ServiceKey(IPv6Address(0), Port(0), fwmark=7)
FLAG = {flag.value: flag for flag in SchedulerFlag}


def to(address: str, weight: int = 1, **more: object) -> Destination:
    found = IPv6Address(address) if ":" in address else IPv4Address(address)
    return replace(Destination(found, Port(6443), weight), **more)  # type: ignore[arg-type]


N1, N2, N3 = to("10.0.1.16"), to("10.0.1.19"), to("10.0.1.20")


def server(
    key: ServiceKey, scheduler: str, *flags: str, to: tuple[Destination, ...] = (), **more: object
) -> VirtualServer:
    found = frozenset(FLAG[flag] for flag in flags)
    made = VirtualServer(key, scheduler, found, destinations=frozenset(to))
    return replace(made, **more)  # type: ignore[arg-type]


CASES = {
    "round robin, direct": (
        server(VIP, "rr", to=(N1,)),
        "-A -t 10.0.1.10:6443 -s rr",
        "-a -t 10.0.1.10:6443 -r 10.0.1.16:6443 -g -w 1",
    ),
    "weighted round robin, masquerade": (
        server(VIP, "wrr", to=(replace(N1, weight=3, forwarding=Forwarding.MASQUERADE),)),
        "-A -t 10.0.1.10:6443 -s wrr",
        "-a -t 10.0.1.10:6443 -r 10.0.1.16:6443 -m -w 3",
    ),
    "least connections, tunnel": (
        server(VIP, "lc", to=(replace(N1, forwarding=Forwarding.TUNNEL),)),
        "-A -t 10.0.1.10:6443 -s lc",
        "-a -t 10.0.1.10:6443 -r 10.0.1.16:6443 -i -w 1 --tun-type ipip",
    ),
    "weighted least connections, GUE with a port and a checksum": (
        server(
            VIP,
            "wlc",
            to=(
                replace(
                    N1,
                    forwarding=Forwarding.TUNNEL,
                    tunnel_type=TunnelType.GUE,
                    tunnel_port=Port(6080),
                    tunnel_flags=1,
                ),
            ),
        ),
        "-A -t 10.0.1.10:6443 -s wlc",
        "-a -t 10.0.1.10:6443 -r 10.0.1.16:6443 -i -w 1 --tun-type gue --tun-port 6080 --tun-csum",
    ),
    "Maglev with both flags": (
        server(VIP, "mh", "mh-port", "mh-fallback", to=(N1,)),
        "-A -t 10.0.1.10:6443 -s mh -b mh-fallback,mh-port",
        "-a -t 10.0.1.10:6443 -r 10.0.1.16:6443 -g -w 1",
    ),
    "Maglev with one flag": (
        server(VIP, "mh", "mh-port", to=(replace(N1, weight=0),)),
        "-A -t 10.0.1.10:6443 -s mh -b mh-port",
        "-a -t 10.0.1.10:6443 -r 10.0.1.16:6443 -g -w 0",
    ),
    "source hash with both flags": (
        server(VIP, "sh", "sh-port", "sh-fallback", to=(N1,)),
        "-A -t 10.0.1.10:6443 -s sh -b sh-fallback,sh-port",
        "-a -t 10.0.1.10:6443 -r 10.0.1.16:6443 -g -w 1",
    ),
    "IPv6": (
        server(VIP6, "mh", "mh-port", to=(to("fd00::19"),)),
        "-A -t [fd00::10]:6443 -s mh -b mh-port",
        "-a -t [fd00::10]:6443 -r [fd00::19]:6443 -g -w 1",
    ),
    "IPv6 over an IPv4 tunnel": (
        server(VIP6, "wlc", to=(to("10.0.1.16", forwarding=Forwarding.TUNNEL),)),
        "-A -t [fd00::10]:6443 -s wlc",
        "-a -t [fd00::10]:6443 -r 10.0.1.16:6443 -i -w 1 --tun-type ipip",
    ),
    "UDP, one packet": (
        server(DNS, "rr", to=(replace(N1, port=Port(53)),), one_packet=True),
        "-A -u 10.0.1.10:53 -s rr -o",
        "-a -u 10.0.1.10:53 -r 10.0.1.16:53 -g -w 1",
    ),
    "SCTP": (
        server(replace(VIP, protocol=Protocol.SCTP), "rr", to=(N1,)),
        "-A --sctp-service 10.0.1.10:6443 -s rr",
        "-a --sctp-service 10.0.1.10:6443 -r 10.0.1.16:6443 -g -w 1",
    ),
    "persistence": (
        server(VIP, "wlc", to=(N1,), persistence=300),
        "-A -t 10.0.1.10:6443 -s wlc -p 300",
        "-a -t 10.0.1.10:6443 -r 10.0.1.16:6443 -g -w 1",
    ),
    "persistence by network": (
        server(VIP, "wlc", to=(N1,), persistence=300, persistence_netmask=24),
        "-A -t 10.0.1.10:6443 -s wlc -p 300 -M 255.255.255.0",
        "-a -t 10.0.1.10:6443 -r 10.0.1.16:6443 -g -w 1",
    ),
    "persistence by IPv6 network": (
        server(VIP6, "wlc", to=(to("fd00::19"),), persistence=300, persistence_netmask=64),
        "-A -t [fd00::10]:6443 -s wlc -p 300 -M 64",
        "-a -t [fd00::10]:6443 -r [fd00::19]:6443 -g -w 1",
    ),
    "thresholds": (
        server(VIP, "wlc", to=(replace(N1, upper_threshold=100, lower_threshold=50),)),
        "-A -t 10.0.1.10:6443 -s wlc",
        "-a -t 10.0.1.10:6443 -r 10.0.1.16:6443 -g -w 1 -x 100 -y 50",
    ),
    "firewall mark": (
        server(MARK, "mh", "mh-port", to=(N1,)),
        "-A -f 7 -s mh -b mh-port",
        "-a -f 7 -r 10.0.1.16:6443 -g -w 1",
    ),
    "firewall mark, IPv6": (
        server(MARK6, "wlc", to=(to("fd00::19"),)),
        "-A -f 7 -6 -s wlc",
        "-a -f 7 -6 -r [fd00::19]:6443 -g -w 1",
    ),
}
