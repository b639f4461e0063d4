"""What a cluster is configured with, drawn from the dice, and the bounds that follow from it."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cached_property
from ipaddress import ip_address

from revip.agent.agent import FIRST_VERDICTS_SECONDS, PARTING_SECONDS
from revip.agent.electing import LINGER, LOOK
from revip.agent.hosting import LONGEST_REST, PERIOD
from revip.agent.keeper import PATIENCE
from revip.model.health import PROFILES, Backend, BackendName, HealthTiming
from revip.model.instants import SECOND, Span
from revip.model.ipvs import Forwarding, IPAddress, Port, ServiceKey
from revip.model.spec import LinkName, NodeName, ProbeSpec, Spec, VirtualServerSpec, VrrpSpec
from revip.model.vrrp import active_down
from revip.planner.backoff import Backoff
from revip.planner.bounds import comparison_bound, removal_bound, return_bound
from revip.planner.handover import GRACE

NAME = "api"
LINK = LinkName("eth0")
PORT = Port(6443)
FIRST_VERDICTS = Span(int(FIRST_VERDICTS_SECONDS * SECOND))
PARTING = Span(int(PARTING_SECONDS * SECOND))
SLACK = Span(150)
"""What the world itself adds to a bound: the ways of packets, latencies, clocks that drift."""
KERNEL_LATE = SECOND
"""How late the kernel may be with the end of a lifetime (addrconf_verify, net/ipv4/devinet.c)."""


@dataclass(frozen=True)
class Setup:
    """One cluster; each node has one agent and one backend, at the same address."""

    nodes: int
    version: int
    """4 or 6: the family of all addresses."""
    elected: bool
    """By VRRP; else node 0 owns the virtual server."""
    vrrp: VrrpSpec
    priorities: tuple[int, ...]
    timing: HealthTiming
    reconcile: Span
    threshold: int
    forwarding: Forwarding
    way: int
    """Longest way of a packet in milliseconds while nothing is the matter."""
    offsets: tuple[int, ...]
    """What each node's clock shows when the world begins."""
    drifts: tuple[int, ...]
    """By how many millionths each node's clock is fast."""

    @cached_property
    def addresses(self) -> tuple[IPAddress, ...]:
        form = "10.0.1.{}" if self.version == 4 else "fd00::{:x}"
        return tuple(ip_address(form.format(16 + node)) for node in range(self.nodes))

    @cached_property
    def vip(self) -> IPAddress:
        return ip_address("10.0.1.10" if self.version == 4 else "fd00::a")

    @cached_property
    def key(self) -> ServiceKey:
        return ServiceKey(self.vip, PORT)

    @cached_property
    def backends(self) -> tuple[Backend, ...]:
        return tuple(
            Backend(_name(number), address, PORT, weight=1 + number % 2)
            for number, address in enumerate(self.addresses)
        )

    def server(self, node: int) -> VirtualServerSpec:
        vrrp = replace(self.vrrp, priority=self.priorities[node]) if self.elected else None
        return VirtualServerSpec(
            NAME,
            self.vip,
            PORT,
            LINK,
            None if self.elected else NodeName(_name(0)),
            self.backends,
            forwarding=self.forwarding,
            panic_threshold=self.threshold,
            probe=ProbeSpec(fresh_every=5),
            health=self.timing,
            vrrp=vrrp,
        )

    def spec(self, node: int) -> Spec:
        return Spec(
            NodeName(_name(node)),
            self.addresses[node],
            (self.server(node),),
            reconcile_interval=self.reconcile,
        )

    # The bounds -----------------------------------------------------------------------------

    @cached_property
    def removal(self) -> int:
        """D of L2, in an undisturbed kernel."""
        return removal_bound(self.timing, reconcile=self.reconcile, backoff=Span(0)) + SLACK

    @cached_property
    def comeback(self) -> int:
        """B of L1 without damping, in an undisturbed kernel."""
        bound = return_bound(self.timing, reconcile=self.reconcile, backoff=Span(0), damped=False)
        return bound + SLACK

    @cached_property
    def damped_comeback(self) -> int:
        """B of L1, for a server that has flapped."""
        return return_bound(self.timing, reconcile=self.reconcile, backoff=Span(0)) + SLACK

    @cached_property
    def repair(self) -> int:
        """L3 for the table: one period, at its latest."""
        return comparison_bound(self.reconcile) + SLACK

    @cached_property
    def backoff(self) -> int:
        """How long a difference may rest after the kernel's last refusal."""
        return Backoff().ceiling

    @cached_property
    def host_repair(self) -> int:
        """L3 for addresses, routes and rules while the kernel announces changes."""
        return LONGEST_REST + SLACK

    @cached_property
    def deaf_repair(self) -> int:
        """The same while it does not."""
        return PERIOD + LONGEST_REST + SLACK

    @cached_property
    def window(self) -> int:
        """S1: how long two who hear each other may both answer for the address.

        A frozen agent's address goes with its lifetime; of two agents awake one yields within an
        interval of the better one, and keeps the address a little for the handover.
        """
        vrrp = self.vrrp
        frozen = vrrp.address_lifetime + KERNEL_LATE
        planned = vrrp.advert_interval + max(LINGER, vrrp.advert_interval + GRACE) + LOOK
        return max(frozen, planned) + 2 * self.way + SLACK

    @cached_property
    def leaving(self) -> int:
        """S1: how long a node answers whose agent is gone or frozen, while its keeper works."""
        return PATIENCE + self.vrrp.advert_interval + GRACE + LOOK + SLACK

    @cached_property
    def aside(self) -> int:
        """How much later somebody answers when a director's kernel refuses the address."""
        return self.vrrp.address_lifetime + self.vrrp.advert_interval + GRACE + LOOK

    @cached_property
    def succession(self) -> int:
        """L4: how long nobody may answer once nothing changes any more."""
        if not self.elected:
            return FIRST_VERDICTS + LONGEST_REST + SLACK
        interval = self.vrrp.advert_interval
        # Listens for a whole Active_Down_Interval; one late look may begin that anew.
        return active_down(1, interval) + interval + LOOK + 2 * self.way + SLACK

    @cached_property
    def parting(self) -> int:
        """How long a table may stay where the address has gone."""
        return self.vrrp.advert_interval + 2 * GRACE + LINGER + PARTING + self.repair


def draw(dice: random.Random) -> Setup:
    """Draw a valid configuration: most are slow enough for many histories to be lived through."""
    nodes = dice.choice((3, 3, 3, 3, 3, 4, 4, 5))
    chance = dice.random()
    interval = Span(
        100 if nodes == 3 and chance < 0.04 else dice.choice((500, 1000, 1000, 2000, 2000, 3000))
    )
    lifetime = -(-(interval + 2 * SECOND) // SECOND) * SECOND
    return Setup(
        nodes=nodes,
        version=dice.choice((4, 4, 4, 6)),
        elected=dice.random() < 0.85,
        vrrp=VrrpSpec(
            51,
            advert_interval=interval,
            preempt=dice.random() < 0.7,
            preempt_delay=Span(dice.choice((0, 0, 3 * interval))),
            address_lifetime=Span(lifetime + dice.choice((0, 0, 2)) * SECOND),
        ),
        priorities=tuple(dice.choice((51, 100, 100, 150, 254)) for _ in range(nodes)),
        timing=_timing(dice, nodes),
        reconcile=Span(dice.choice((1000, 2000, 5000, 5000, 5000))),
        threshold=dice.choice((1, 1, 2)),
        forwarding=dice.choice((Forwarding.DIRECT, Forwarding.DIRECT, Forwarding.MASQUERADE)),
        way=dice.choice((1, 5, 20)),
        offsets=tuple(dice.randrange(10**8) for _ in range(nodes)),
        drifts=tuple(dice.randint(-200, 200) for _ in range(nodes)),
    )


def _timing(dice: random.Random, nodes: int) -> HealthTiming:
    """Draw the judge's timing: few are quick, for each probe of a history has to be lived."""
    chance = dice.random()
    if nodes == 3 and chance < 0.005:
        return PROFILES["fast"]
    if nodes == 3 and chance < 0.06:
        return PROFILES["default"]
    interval = dice.choice((1500, 4000, 8000, 8000, 8000, 8000))
    hold = dice.choice((0, 1000, 5000))
    return replace(
        PROFILES["gentle"],
        interval=Span(interval),
        fast_interval=Span(dice.choice((200, 500, 1000))),
        timeout=Span(dice.choice((1000, 3000, 3000))),
        rise=dice.choice((1, 2, 3)),
        fall=dice.choice((1, 2, 3)),
        jitter_percent=dice.choice((0, 10, 30)),
        damping_changes=dice.choice((3, 6, 10)),
        damping_window=Span(dice.choice((60_000, 120_000, 600_000))),
        damping_hold=Span(hold),
        damping_hold_max=Span(hold * dice.choice((1, 2, 4))),
    )


def _name(number: int) -> BackendName:
    return BackendName(f"n{number}")
