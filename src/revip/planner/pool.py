"""The pool policy: who is in the table, with which weight, and why.

Two rules stand above all others.  A pool is never emptied by health alone: with too few healthy
backends, doubtful ones are invited back, for a load balancer with no servers is worse than one
with doubtful servers.  And what is not judged yet stays as the kernel has it, so that a restart
of the agent moves no traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from revip.model.health import Backend, BackendName, Finding, Health, ProbeResult, Verdict
from revip.model.instants import SECOND, Instant, later
from revip.model.ipvs import Destination, IPAddress, Port, VirtualServer
from revip.model.spec import VirtualServerSpec
from revip.planner.health import GOOD


@dataclass(frozen=True, slots=True)
class Member:
    """One backend as the policy sees it."""

    backend: Backend
    health: Health
    drained: bool = False
    """The operator's `revip drain`."""
    drained_since: Instant | None = None
    """When that began; None sets it no deadline."""


class PoolMode(Enum):
    """What the pool lives by."""

    NORMAL = "normal"
    """Enough backends are healthy."""
    PANIC = "panic"
    """Too few are: those held back or drained are in, and if that is not enough, all are."""
    STARTING = "starting"
    """Too few are known to be healthy, but verdicts are outstanding."""
    EMPTY = "empty"
    """No backend is known."""


@dataclass(frozen=True, slots=True)
class Pool:
    """What the policy decided."""

    mode: PoolMode
    destinations: frozenset[Destination]
    reasons: Mapping[BackendName, str]
    """Why each backend is in, in with weight 0, or out."""
    reason: str
    """Why the mode is what it is."""


_Place = tuple[int | None, str]
"""A weight, None for out of the table; and why."""


def pool(
    spec: VirtualServerSpec,
    members: Sequence[Member],
    observed: frozenset[Destination],
    now: Instant,
) -> Pool:
    """Decide the destinations of one virtual server.

    `members` are the backends that discovery knows now: a destination in `observed` that belongs
    to none of them is dropped.  A threshold above the number of members asks for all of them,
    one below 1 for one.
    """
    if not members:
        return Pool(PoolMode.EMPTY, frozenset(), {}, "no backend is known")
    weights = {dest.endpoint: dest.weight for dest in observed}
    healthy = [member for member in members if member.health.verdict is Verdict.HEALTHY]
    policy = _Policy(spec, weights, bool(healthy) and all(map(_doubted, healthy)), now)
    mode, place, reason = policy.choose(members)
    places = {member.backend: place(member) for member in members}
    return Pool(
        mode,
        frozenset(
            Destination(backend.address, backend.port, weight, spec.forwarding)
            for backend, (weight, _) in places.items()
            if weight is not None
        ),
        {backend.name: why for backend, (_, why) in places.items()},
        reason,
    )


def virtual_server(spec: VirtualServerSpec, decided: Pool) -> VirtualServer:
    """Return the virtual server as the kernel's table should have it."""
    return VirtualServer(spec.key, spec.scheduler, spec.flags, destinations=decided.destinations)


def drain_refusal(
    members: Sequence[Member], name: BackendName, panic_threshold: int = 1
) -> str | None:
    """Return why draining `name` would have no effect or is not possible; None when it may go.

    Health may still take the others later: then the pool overrides the drain and says so.
    """
    if all(member.backend.name != name for member in members):
        known = ", ".join(sorted(member.backend.name for member in members))
        return f"no backend is called {name}; known are: {known or 'none'}"
    others = [member for member in members if member.backend.name != name]
    left = sum(_available(member) for member in others)
    needed = max(1, panic_threshold)
    if left >= needed:
        return None
    states = (
        "; ".join(f"{member.backend.name} is {_state(member)}" for member in others)
        or "it is the only one"
    )
    return f"without {name} only {left} healthy of the {needed} needed would be left: {states}"


def common_cause(members: Sequence[Member]) -> str | None:
    """Return a sentence when all of two or more backends fail alike, which is rarely chance.

    For people only: no verdict and no weight depends on it.
    """
    results = [member.health.last for member in members]
    if len(results) < 2 or len({_failure(result) for result in results}) != 1:
        return None
    last = results[0]
    if last is None or last.finding is Finding.READY:
        return None
    return f"all {len(results)} backends fail alike ({last.reason}): {_suspicion(last)}"


@dataclass(frozen=True, slots=True)
class _Policy:
    """The rules, with what they look at."""

    spec: VirtualServerSpec
    weights: Mapping[tuple[IPAddress, Port], int]
    """Observed weights by endpoint."""
    in_doubt: bool
    """Whether there are healthy ones, and all of them have just answered badly."""
    now: Instant

    def choose(self, members: Sequence[Member]) -> tuple[PoolMode, Callable[[Member], _Place], str]:
        """Return the mode, where it places a member, and why."""
        needed = min(max(1, self.spec.panic_threshold), len(members))
        available = sum(map(_available, members))
        said = f"{available} of {len(members)} healthy, {needed} needed"
        if available >= needed:
            return PoolMode.NORMAL, self._ordinary, said
        awaited = sum(map(_awaited, members))
        if awaited and not available:
            return PoolMode.STARTING, self._as_found, f"{said}; {awaited} not judged yet"
        if awaited or any(map(self._carries, members)):
            return PoolMode.STARTING, self._ordinary, f"{said}; others not judged yet"
        if sum(map(_well, members)) >= needed:
            return PoolMode.PANIC, self._spared, f"{said}: drained or held back ones are in"
        return PoolMode.PANIC, self._everyone, f"{said}: all known backends are in"

    def _ordinary(self, member: Member) -> _Place:
        health = member.health
        if health.verdict is Verdict.UNHEALTHY:
            if self._in_the_table(member) and _answers_well(member):
                return member.backend.weight, "in since the panic, and it answers well again"
            if self._in_the_table(member) and self.in_doubt:
                why = "kept until another backend answers well again"
                return member.backend.weight, f"unhealthy, but {why}: {health.reason}"
            return None, f"unhealthy, out: {health.reason}"
        if health.verdict is Verdict.UNKNOWN:
            weight, why = self._as_found(member)
            return (0, "drained by the operator") if weight and member.drained else (weight, why)
        if self._deadline_passed(member):
            limit = self.spec.drain_deadline / SECOND
            return None, f"out: drained for longer than drain_deadline ({limit:g} s)"
        if member.drained:
            return 0, "weight 0: drained by the operator"
        if health.verdict is Verdict.DRAINING:
            return 0, f"draining, weight 0: {health.reason}"
        return member.backend.weight, f"healthy: {health.reason}"

    def _as_found(self, member: Member) -> _Place:
        found = self.weights.get((member.backend.address, member.backend.port))
        if found is None:
            return None, f"not in the table and left out: {_state(member)}"
        weight = member.backend.weight if found else 0
        return weight, f"kept in the table with weight {weight}: {_state(member)}"

    def _spared(self, member: Member) -> _Place:
        if not _well(member) or _available(member):
            return self._ordinary(member)
        spared = "drain overridden" if member.drained else "held back no longer"
        return member.backend.weight, f"panic, {spared}: too few others are healthy"

    def _everyone(self, member: Member) -> _Place:
        return member.backend.weight, f"panic, in although {_state(member)}"

    def _carries(self, member: Member) -> bool:
        """Whether an unjudged member takes new connections now."""
        return (
            member.health.verdict is Verdict.UNKNOWN
            and not member.drained
            and bool(self._as_found(member)[0])
        )

    def _in_the_table(self, member: Member) -> bool:
        """Whether it takes new connections now.

        What is in is taken out with more care than what is out is let in.  One that panic let in
        and that answers well, though not yet `rise` times, stays: else every client would be sent
        to the first that recovered.  And while all that are still called healthy have just
        answered badly, nobody is taken out, for that looks like a common cause: removal resets
        connections, and panic would let them all in again a moment later.
        """
        return bool(self.weights.get((member.backend.address, member.backend.port)))

    def _deadline_passed(self, member: Member) -> bool:
        begun = []
        if member.health.verdict is Verdict.DRAINING:
            begun.append(member.health.since)
        if member.drained and member.drained_since is not None:
            begun.append(member.drained_since)
        deadline = self.spec.drain_deadline
        return bool(begun) and deadline > 0 and self.now >= later(min(begun), deadline)


def _available(member: Member) -> bool:
    return member.health.verdict is Verdict.HEALTHY and not member.drained


def _answers_well(member: Member) -> bool:
    last = member.health.last
    return last is not None and last.finding in GOOD


def _doubted(member: Member) -> bool:
    """Whether its newest result speaks against it; a fault of ours speaks against nobody."""
    last = member.health.last
    return last is not None and last.finding not in GOOD | {Finding.OURS}


def _awaited(member: Member) -> bool:
    """Whether a verdict can be expected soon: a fault of ours could last for ever."""
    last = member.health.last
    return (
        member.health.verdict is Verdict.UNKNOWN
        and not member.drained
        and (last is None or last.finding is not Finding.OURS)
    )


def _well(member: Member) -> bool:
    """Whether the backend itself is fit, whatever keeps it out."""
    return member.health.verdict is Verdict.HEALTHY or member.health.held_back_until is not None


def _state(member: Member) -> str:
    drained = "drained by the operator, " if member.drained else ""
    return f"{drained}{member.health.verdict.value} ({member.health.reason})"


def _failure(result: ProbeResult | None) -> tuple[Finding, str] | None:
    return None if result is None else (result.finding, result.stage)


def _suspicion(result: ProbeResult) -> str:
    """Say what usually makes all backends fail in this way."""
    match result.finding, result.stage:
        case Finding.DENIED, _:
            return "likely our own credential, or anonymous access was closed everywhere"
        case Finding.NOT_READY, _:
            return "likely something behind them all, such as etcd, which /readyz includes"
        case Finding.OURS, _:
            return "the fault is on our side"
        case Finding.REFUSED, _:
            return "likely a wrong port, or all of them were stopped"
        case _, "tls":
            return "likely our own CA, client certificate or clock"
        case _, "connect":
            return "likely our own network"
        case _:
            return "likely a common cause, such as our own network or an overload"
