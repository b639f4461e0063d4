"""Masquerading what IPVS forwards, by iptables(8), in a chain of our own (iptables-extensions(8)).

There is no cheap way to ask the kernel for its rules, only a process, so what was seen is trusted
for `RECHECK` seconds; a rule that a vandal takes away is missing for that long.  Whether a rule of
ours must be removed is told by the record and needs no process: hosts that never masquerade never
start one, and no packet-filter module is loaded on them by our asking.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import shlex
from collections.abc import Iterable
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path

from revip.adapters.host.record import Record
from revip.adapters.host.refusals import refusal
from revip.errors import KernelError
from revip.model.host import Snat
from revip.model.ipvs import Port, at

CHAIN = "REVIP-POSTROUTING"
RECHECK = 10.0
"""Seconds; two short processes per family in each, so some 0.1 % of a core."""
DEADLINE = 5.0
LOCK_WAIT = "2"
"""Seconds to wait for another iptables (xtables lock)."""

_LEGACY_TABLES = {4: Path("/proc/net/ip_tables_names"), 6: Path("/proc/net/ip6_tables_names")}


class Masquerading:
    """The rules in our chain, per family, by whichever iptables works on this host."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._tools: dict[int, str] = {}
        self._seen: tuple[frozenset[Snat], frozenset[Snat], float] | None = None

    async def in_force(self, wanted: frozenset[Snat]) -> frozenset[Snat]:
        """Return those of `wanted` that are there.

        Where no iptables works none is; `give` says why, when all that comes before is done.
        """
        now = asyncio.get_running_loop().time()
        if self._seen and self._seen[0] == wanted and now < self._seen[2] + RECHECK:
            return self._seen[1]
        found: set[Snat] = set()
        for version in sorted({fact.address.version for fact in wanted}):
            with contextlib.suppress(KernelError):
                found |= await self._rules(version)
        self._seen = (wanted, wanted & found, now)
        return wanted & found

    def ours(self, facts: Iterable[Snat]) -> frozenset[Snat]:
        """Return those of `facts` that we have put in place and not taken away."""
        return frozenset(fact for fact in facts if _entry(fact) in self._record.chains)

    async def give(self, fact: Snat) -> None:
        """Put the rule, and the jump to our chain, in place.  Raises `KernelError`."""
        self._seen = None
        if _entry(fact) not in self._record.chains:
            self._record.chains.add(_entry(fact))
            self._record.save()
        version = fact.address.version
        await self._iptables(version, "-N", CHAIN)  # refused when it is there
        if fact not in await self._listed(version):
            await self._must(version, "-A", CHAIN, *_match(fact))
        if not await self._jumps(version):
            # First, so that no network plug-in's rule ends the way before us; the match is
            # narrow enough not to take anything from it.
            await self._must(version, "-I", "POSTROUTING", "1", "-j", CHAIN)

    async def take(self, fact: Snat) -> None:
        """Take the rule away, and with the last one our chain.  Raises `KernelError`."""
        self._seen = None
        version = fact.address.version
        while fact in await self._listed(version):
            await self._must(version, "-D", CHAIN, *_match(fact))
        if not await self._listed(version):
            while await self._jumps(version):
                await self._must(version, "-D", "POSTROUTING", "-j", CHAIN)
            await self._iptables(version, "-X", CHAIN)
        self._record.chains.discard(_entry(fact))
        self._record.save()

    async def _rules(self, version: int) -> frozenset[Snat]:
        return await self._listed(version) if await self._jumps(version) else frozenset()

    async def _jumps(self, version: int) -> bool:
        code, _ = await self._iptables(version, "-C", "POSTROUTING", "-j", CHAIN)
        return code == 0

    async def _listed(self, version: int) -> frozenset[Snat]:
        _, text = await self._iptables(version, "-S", CHAIN)
        return frozenset(fact for line in text.splitlines() if (fact := _parsed(line)))

    async def _must(self, version: int, *arguments: str) -> None:
        code, text = await self._iptables(version, *arguments)
        if code:
            operation = f"iptables -t nat {' '.join(arguments)}"
            lines = text.strip().splitlines()
            raise refusal(errno.EPERM if code == 4 else errno.EINVAL, operation, _why(lines))

    async def _iptables(self, version: int, *arguments: str) -> tuple[int, str]:
        if version not in self._tools:
            self._tools[version] = await _working_tool(version)
        return await _run(self._tools[version], *arguments)


async def _working_tool(version: int) -> str:
    """Choose the flavor whose tables this host uses already, then any that works."""
    name = "iptables" if version == 4 else "ip6tables"
    candidates = [name, f"{name}-legacy"]
    try:
        if "nat" in _LEGACY_TABLES[version].read_text(encoding="ascii").split():
            candidates.reverse()
    except OSError:
        pass  # no legacy tables in use
    complaint = ["not installed"]
    for tool in candidates:
        code, text = await _run(tool, "-S", "POSTROUTING")
        if code == 0:
            return tool
        complaint = text.strip().splitlines() or complaint
    sentence = f"no working {name} ({complaint[-1]}); install iptables, or use forwarding: direct"
    raise refusal(errno.ENOSYS, f"run {name}", sentence)


async def _run(tool: str, *arguments: str) -> tuple[int, str]:
    """Return exit code and output; 127 when there is no such program."""
    try:
        process = await asyncio.create_subprocess_exec(
            tool,
            *("-w", LOCK_WAIT, "-t", "nat", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        return 127, f"{tool}: {error.strerror}"
    try:
        async with asyncio.timeout(DEADLINE):
            output, _ = await process.communicate()
    except TimeoutError as error:
        raise refusal(errno.ETIMEDOUT, f"run {tool}", f"no answer in {DEADLINE:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, output.decode(errors="replace")


def _match(fact: Snat) -> tuple[str, ...]:
    vip, port = str(fact.address), str(fact.port)
    return ("-m", "ipvs", "--vaddr", vip, "--vport", port, "-j", "MASQUERADE")


def _parsed(line: str) -> Snat | None:
    """Read one rule as `iptables -S` prints it; None when it is not of our form."""
    words = shlex.split(line)
    options = dict(pairwise(words))
    address, port = options.get("--vaddr"), options.get("--vport", "")
    if options.get("-A") != CHAIN or options.get("-j") != "MASQUERADE":
        return None
    if address is None or not port.isdigit():
        return None
    return Snat(ip_address(address.partition("/")[0]), Port(int(port)))


def _entry(fact: Snat) -> str:
    return at(fact.address, fact.port)


def _why(lines: list[str]) -> str:
    said = lines[-1] if lines else "refused without a word"
    return f"{said}; is the module xt_ipvs available? run `modprobe xt_ipvs`"
