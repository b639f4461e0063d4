"""Deliberate faults in the machines: a simulator that does not catch them proves nothing.

Each replaces one function of the code under test by one with a mistake that somebody has made, or
could.  The first three are kube-vip's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from revip.agent import electing, keeper
from revip.agent.electing import Election
from revip.agent.hosting import Hosting
from revip.agent.keeper import Keeper
from revip.agent.kept import KeeperError, Keeping
from revip.model.health import Finding, Verdict
from revip.model.instants import NEVER, Instant, Span, later
from revip.model.ipvs import DeleteDestination
from revip.model.vrrp import Backup, Sent
from revip.planner import health, node, pool, vrrp
from revip.planner.actions import Reconcile
from revip.planner.backoff import Backoff
from revip.planner.grip import Grip
from revip.planner.health import Judge, Waiting
from revip.planner.node import Node
from tests.simulation.agent import Agent
from tests.simulation.host import Clock
from tests.simulation.servers import Probe

Mutant = Callable[[], Iterator[None]]
MUTANTS: dict[str, Mutant] = {}
"""By what is wrong with them."""
HINTS = {
    "checks serial under one lock": 9,
    "verdict flipped although the kernel write failed": 8,
    "an advert that failed counts as sent": 29,
    "a woken node goes on as if nothing had been": 5,
    "a fault of ours counts as the server's": 5,
    "the wait after a refusal grows without end": 8,
    "the lease ends too late": 9,
    "the keeper has patience without end": 9,
    "who cannot have the address goes on to claim it": 245,
}
"""Histories that caught the hardier ones when this was written: tried first, to save time."""


def mutant(name: str, where: Any, what: str) -> Callable[[Callable[..., Any]], None]:
    """Register a replacement for `where.what`, made from the original."""

    def register(make: Callable[..., Any]) -> None:
        def apply() -> Iterator[None]:
            true = where.__dict__[what]
            setattr(where, what, make(getattr(where, what)))
            try:
                yield
            finally:
                setattr(where, what, true)

        MUTANTS[name] = apply

    return register


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """Live with one mutant."""
    yield from MUTANTS[name]()


# kube-vip's three ---------------------------------------------------------------------------------


@mutant("return forgotten: who is out stays out", Judge, "_verdict")
def _(true: Callable[..., Verdict]) -> Callable[..., Verdict]:
    def verdict(self: Judge, before: Verdict, streaks: Any) -> Verdict:
        said = true(self, before, streaks)
        return before if before is Verdict.UNHEALTHY else said

    return verdict


@mutant("verdict flipped although the kernel write failed", Node, "fail")
def _(true: Callable[..., Any]) -> Callable[..., Any]:
    def fail(self: Node, error: Any, now: Instant, tried: Any = None) -> Any:
        said = true(self, error, now, tried)
        if tried is not None:  # counts as done, so that nothing is left to do
            self.troubles._now[tried.key] = replace(self.troubles._now[tried.key], until=NEVER)
        return said

    return fail


@mutant("checks serial under one lock", Agent, "ask")
def _(true: Callable[..., Any]) -> Callable[..., Any]:
    def ask(self: Agent, wanted: Any) -> None:
        queue = self.__dict__.setdefault("queue", [])
        queue.append(wanted)
        if len(queue) == 1:
            _next(self)

    def _next(self: Agent) -> None:
        true(self, self.__dict__["queue"][0])
        probe = self.world.probes[self.host.number, int(self.__dict__["queue"][0].backend[1:])]
        done = probe.done

        def after(ended: Probe, result: Any) -> None:
            done(ended, result)
            self.__dict__["queue"].pop(0)
            if self.__dict__["queue"] and self.host.agent is self:
                _next(self)

        probe.done = after

    return ask


# Judging ------------------------------------------------------------------------------------------


@mutant("only a refusal counts: what hangs is never taken out", Judge, "_verdict")
def _(true: Callable[..., Verdict]) -> Callable[..., Verdict]:
    def verdict(self: Judge, before: Verdict, streaks: Any) -> Verdict:
        return before if streaks.dead and not streaks.refused else true(self, before, streaks)

    return verdict


@mutant("not ready counts as ready", health, "GOOD")
def _(true: frozenset[Finding]) -> frozenset[Finding]:
    return true | {Finding.NOT_READY}


@mutant("a fault of ours counts as the server's", Judge, "_weigh")
def _(true: Callable[..., Any]) -> Callable[..., Any]:
    def weigh(self: Judge, state: Any, result: Any, *rest: Any) -> Any:
        if result.finding is Finding.OURS:
            result = replace(result, finding=Finding.FAILED)
        return true(self, state, result, *rest)

    return weigh


@mutant("a hold by damping has no longest", health, "doubled")
def _(true: Callable[..., Span]) -> Callable[..., Span]:
    return lambda span, times, ceiling: Span(span << min(times + 4, 32))


@mutant("a lost connection puts off the next probe for ever", Judge, "_hear")
def _(true: Callable[..., Any]) -> Callable[..., Any]:
    def hear(self: Judge, state: Any, event: Any, now: Instant) -> Any:
        after = true(self, state, event, now)
        if isinstance(event, health.ConnectionLost) and isinstance(after.errand, Waiting):
            hour = later(now, Span(3_600_000))
            return replace(after, errand=Waiting(hour, hour))
        return after

    return hear


@mutant("a lost connection is a verdict", Judge, "_hear")
def _(true: Callable[..., Any]) -> Callable[..., Any]:
    def hear(self: Judge, state: Any, event: Any, now: Instant) -> Any:
        after = true(self, state, event, now)
        if isinstance(event, health.ConnectionLost):
            return replace(after, health=replace(after.health, verdict=Verdict.UNHEALTHY))
        return after

    return hear


# The pool and the table ---------------------------------------------------------------------------


@mutant("no panic: when all are ill, all are out", pool._Policy, "_everyone")
def _(true: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, member: self._ordinary(member)


@mutant("who is not judged yet is out: a restart empties the table", pool._Policy, "_as_found")
def _(true: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, member: (None, "not judged yet")


@mutant("nobody is ever deleted from the table", node, "diff")
def _(true: Callable[..., Any]) -> Callable[..., Any]:
    def diff(desired: Any, observed: Any) -> Any:
        return tuple(c for c in true(desired, observed) if not isinstance(c, DeleteDestination))

    return diff


@mutant("turned away first, invited afterwards", node, "diff")
def _(true: Callable[..., Any]) -> Callable[..., Any]:
    def diff(desired: Any, observed: Any) -> Any:
        plan = true(desired, observed)
        return tuple(sorted(plan, key=lambda c: not isinstance(c, DeleteDestination)))

    return diff


@mutant("compared only when something happens: drift stays", Node, "wake")
def _(true: Callable[..., Any]) -> Callable[..., Any]:
    def wake(self: Node, now: Instant) -> Any:
        return [a for a in true(self, now) if not isinstance(a, Reconcile)]

    return wake


@mutant("a deleted virtual server is not noticed", node, "owned")
def _(true: Callable[..., Any]) -> Callable[..., Any]:
    def owned(observed: Any, keys: Any) -> Any:
        return {**{key: _kept[key] for key in keys if key in _kept}, **true(observed, keys)}

    _kept: dict[Any, Any] = {}

    def remember(observed: Any, keys: Any) -> Any:
        seen = owned(observed, keys)
        _kept.update(seen)
        return seen

    return remember


@mutant("the wait after a refusal grows without end", Backoff, "delay")
def _(true: property) -> property:
    return property(lambda self: Span(100 << min(4 * self.failures, 40) if self.failures else 0))


@mutant("a former director keeps its table", Node, "part")
def _(true: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, now: []


# The election -------------------------------------------------------------------------------------


@mutant("a better peer is not yielded to", vrrp, "_heard_as_active")
def _(true: Callable[..., Any]) -> Callable[..., Any]:
    return lambda router, state, phase, heard, now: (state, ())


@mutant("nobody ever claims", vrrp, "_timer_fired")
def _(true: Callable[..., Any]) -> Callable[..., Any]:
    def fired(router: Any, state: Any, now: Instant) -> Any:
        return (state, ()) if isinstance(state.phase, Backup) else true(router, state, now)

    return fired


@mutant("claims only after thrice the time", vrrp, "active_down")
def _(true: Callable[..., Span]) -> Callable[..., Span]:
    return lambda priority, interval: Span(3 * true(priority, interval))


@mutant("a woken node goes on as if nothing had been", vrrp, "_overslept")
def _(true: Callable[..., Any]) -> Callable[..., Any]:
    return lambda router, state, now: ""


@mutant("the lease ends too late", electing, "holds_until")
def _(true: Callable[..., Any]) -> Callable[..., Any]:
    def holds_until(router: Any, state: Any) -> Any:
        until = true(router, state)
        return None if until is None else later(until, Span(60_000))

    return holds_until


@mutant("an advert that failed counts as sent", Election, "_send")
def _(true: Callable[..., Any]) -> Callable[..., Any]:
    def send(self: Election, action: Any) -> Any:
        true(self, action)
        return Sent(self._outside.clock.now())

    return send


@mutant("a former director never lets go", Election, "_hand_over")
def _(true: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self: None


@mutant("the lifetime is not renewed", Keeper, "_renew")
def _(true: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, place, lease: None


@mutant("the keeper has patience without end", keeper, "PATIENCE")
def _(true: Span) -> Span:
    return Span(3_600_000)


@mutant("the keeper goes on without an agent", Keeper, "_silent")
def _(true: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self: None if self.alone else true(self)


@mutant("a keeper that has failed is not missed", Keeping, "_look")
def _(true: Callable[..., Any]) -> Callable[..., Any]:
    def look(self: Keeping) -> None:
        with suppress(KeeperError):
            true(self)

    return look


@mutant("who cannot have the address goes on to claim it", Grip, "at")
def _(true: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, now: self


# The host -----------------------------------------------------------------------------------------


@mutant("an address that others delete is not put back", Hosting, "_step")
def _(true: Callable[..., Any]) -> Callable[..., Any]:
    async def step(self: Hosting, parts: Any) -> Any:
        if self._settled:
            return []
        return await true(self, parts)

    return step


@mutant("the agent's clock is the wall's", Clock, "now")
def _(true: Callable[..., Instant]) -> Callable[..., Instant]:
    return lambda self: Instant(max(0, true(self) + self.wall))
