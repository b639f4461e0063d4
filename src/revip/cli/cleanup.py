"""`revip cleanup`: the host as it was before revip, for when no agent runs any more."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

from revip.api.control import claim
from revip.config.load import load
from revip.errors import KernelError
from revip.model.host import HostFact, HostState, Sysctl
from revip.model.ipvs import Table
from revip.model.spec import Spec
from revip.planner.diff import diff, owned
from revip.planner.host import combined, describe_fact, fence_of, host_diff, host_state, undone
from revip.planner.sync import sync_state
from revip.ports import Host
from revip.wiring import ports

PASSES = 4


def cleanup(config: Path | None, *, dry_run: bool) -> int:
    """Remove our virtual servers, addresses, routes and rules; restore the sysctls."""
    spec = load(config, os.environ, socket.gethostname().partition(".")[0])
    with claim(spec.socket):  # refuses while an agent runs: it would put everything back
        removed = asyncio.run(_clean(spec, dry_run))
        if not dry_run:
            spec.state_file.unlink(missing_ok=True)
            spec.socket.with_name(spec.socket.name + ".lock").unlink(missing_ok=True)
    verb = "would remove" if dry_run else "removed"
    for line in removed:
        print(f"{verb} {line}")
    if not removed:
        print("nothing of ours is on this host")
    return 0


async def _clean(spec: Spec, dry_run: bool) -> list[str]:
    outside = ports(spec)
    keys = frozenset(server.key for server in spec.virtual_servers) | outside.ownership.read().keys
    removed: list[str] = []
    if outside.host is not None:
        removed += await _clean_host(outside.host, await _roles(spec, outside.host), dry_run)
        await outside.host.close()
    try:
        held: Table = owned(outside.table.observe(keys).table, keys)
        changes = diff({}, held)
        if not dry_run:
            outside.table.apply(changes)
        removed += map(str, held)
    except KernelError as error:
        removed.append(f"nothing from the IPVS table: {error.sentence}")
    outside.table.close()
    return removed


async def _clean_host(host: Host, wanted: HostState, dry_run: bool) -> list[str]:
    removed: list[str] = []
    for _ in range(PASSES):
        surplus, missing = host_diff(wanted, await host.observe(wanted))
        removed += map(_said, surplus)
        if dry_run or not (surplus or missing):
            break
        await host.apply(surplus, missing)
    return removed


def _said(fact: HostFact) -> str:
    """Name what goes; of a sysctl it is our change that goes."""
    shown = describe_fact(fact)
    return f"our change of {shown}" if isinstance(fact, Sysctl) else shown


async def _roles(spec: Spec, host: Host) -> HostState:
    vips = frozenset(server.address for server in spec.virtual_servers)
    # Named as followed and as directed, so that whatever part they had is undone.
    keys = frozenset(server.key for server in spec.virtual_servers)
    states = [sync_state(spec, each, each, strangers=False) for each in (keys, frozenset())]
    for server in spec.virtual_servers:
        states.append(HostState(absent=frozenset({fence_of(server)})))  # also without an address
        try:
            address = await host.node_address(server.interface, server.address.version, vips)
        except KernelError:
            continue  # the interface is gone, and what was on it with it
        states += [host_state(spec, server, directing, address) for directing in (True, False)]
    return undone(combined(states))
