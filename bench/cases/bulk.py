"""A large table: 100 virtual servers with 10 destinations each, beside ipvsadm -R."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from ipaddress import IPv4Address

from lab.places import LabError, program

from bench.cases import Effort
from bench.rows import Bound, Row, Sheet
from bench.subjects import DEFAULT
from bench.world import DIRECTOR, World, say
from revip.adapters.ipvs import GenetlinkIpvs
from revip.model.ipvs import (
    DeleteDestination,
    Destination,
    Port,
    SchedulerFlag,
    ServiceKey,
    VirtualServer,
    table,
)
from revip.planner.diff import diff

SERVICES, DESTINATIONS = 100, 10
IPVSADM = "ipvsadm -R"
FLAGS = frozenset({SchedulerFlag.MH_PORT, SchedulerFlag.MH_FALLBACK})


def bulk(world: World, effort: Effort) -> list[Row]:
    """Fill an empty table, and mend one entry of a full one; observation and plan included."""
    size = f"{SERVICES} virtual servers × {DESTINATIONS} destinations"
    filled = Sheet(f"{size}: first sync", bounds=(Bound(DEFAULT, times=(1.5, IPVSADM)),))
    starting = Sheet("of which: starting ipvsadm", contest=False, note="ipvsadm -h")
    mended = Sheet(f"{size}: one change among them", bounds=(Bound(DEFAULT, p99=20),))
    desired = _large()
    keys, key = frozenset(desired), next(iter(desired))
    victim = min(desired[key].destinations, key=str)
    with world.lab.network.inside(DIRECTOR):
        kernel = GenetlinkIpvs()
        kernel.apply(diff(desired, kernel.observe(keys).table))
        rules = _ipvsadm("-Sn")
        for _ in range(effort.rounds):
            _ipvsadm("-C")
            sync = lambda: kernel.apply(diff(desired, kernel.observe(keys).table))  # noqa: E731
            filled.add(DEFAULT, _timed(sync))
            if kernel.observe(keys).table != desired:
                raise LabError("the large table did not come out as desired")
            for _ in range(3):
                kernel.apply([DeleteDestination(key, victim)])
                mended.add(DEFAULT, _timed(lambda: _mend(kernel, key, desired[key])))
            _ipvsadm("-C")
            filled.add(IPVSADM, _timed(lambda: _ipvsadm("-R", rules=rules)))
            starting.add(IPVSADM, _timed(lambda: _ipvsadm("-h")))
        _ipvsadm("-C")
        kernel.close()
    say(f"bulk: {filled.samples}")
    return [filled.row(), starting.row(), mended.row()]


def _mend(kernel: GenetlinkIpvs, key: ServiceKey, wanted: VirtualServer) -> None:
    kernel.apply(diff({key: wanted}, kernel.observe(frozenset({key})).table))


def _large() -> dict[ServiceKey, VirtualServer]:
    pool = frozenset(
        Destination(IPv4Address(f"10.0.2.{last}"), Port(6443), 1)
        for last in range(1, DESTINATIONS + 1)
    )
    keys = (
        ServiceKey(IPv4Address(f"10.0.3.{last}"), Port(6443)) for last in range(1, SERVICES + 1)
    )
    return table(VirtualServer(key, "mh", FLAGS, destinations=pool) for key in keys)


def _timed(act: Callable[[], object]) -> float:
    begun = time.perf_counter()
    act()
    return (time.perf_counter() - begun) * 1000


def _ipvsadm(*arguments: str, rules: str | None = None) -> str:
    done = subprocess.run(
        [program("ipvsadm") or "ipvsadm", *arguments],
        input=rules,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LabError(f"ipvsadm {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
