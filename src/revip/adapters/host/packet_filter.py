"""Masquerading and not tracking, by iptables(8), each in a chain of our own.

There is no cheap way to ask the kernel for its rules, only a process, so what was seen is trusted
for `RECHECK` seconds; a rule that a vandal takes away is missing for that long.  Whether a rule of
ours must be removed is told by the record and needs no process: hosts that need no rule never
start one, and no packet-filter module is loaded on them by our asking.  A chain is replaced as a
whole, in one step, by iptables-restore(8).

Nobody waits for a process where a connection does not depend on it: what is trusted too long is
looked at again in the background, and an exception from tracking is first tried there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import shlex
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path

from revip.adapters.host.record import Record
from revip.adapters.host.refusals import refusal
from revip.errors import KernelError
from revip.model.host import Snat, Untracked
from revip.model.ipvs import IPAddress, Port, at
from revip.model.spec import LinkName

Rule = Snat | Untracked

RECHECK = 10.0
"""Seconds; one short process per family and table in each, so some 0.1 % of a core."""
DEADLINE = 5.0
LOCK_WAIT = "2"
"""Seconds to wait for another iptables (xtables lock)."""

_LEGACY_TABLES = {4: Path("/proc/net/ip_tables_names"), 6: Path("/proc/net/ip6_tables_names")}


@dataclass(frozen=True, slots=True)
class Place:
    """Where rules of one kind stand: family, table, the hook that jumps, and our chain."""

    version: int
    table: str
    hook: str
    chain: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What a place holds: whether there is our chain, how often it is jumped to, our rules."""

    exists: bool = False
    jumps: int = 0
    rules: frozenset[Rule] = frozenset()

    @property
    def in_force(self) -> frozenset[Rule]:
        """The rules that packets meet."""
        return self.rules if self.jumps else frozenset()


class PacketFilter:
    """The rules in our chains, by whichever iptables works on this host."""

    def __init__(self, record: Record, tracking: Path) -> None:
        """Keep in `record` what is ours; `tracking` exists where connections are tracked."""
        self._record = record
        self._tracking = tracking
        self._tools: dict[int, str] = {}
        self._lacking: dict[int, tuple[KernelError, float]] = {}
        self._seen: dict[Place, tuple[Seen, float]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._working: dict[Rule | Place, asyncio.Task[None]] = {}
        self._refused: set[Rule] = set()

    async def in_force(self, wanted: frozenset[Rule]) -> frozenset[Rule]:
        """Return those of `wanted` for which nothing need be done.

        Where no iptables works none masquerades; `give` says why, when all before it is done.
        """
        found: set[Rule] = set()
        for place in sorted({_place(fact) for fact in wanted}, key=str):
            mine = frozenset(fact for fact in wanted if _place(fact) == place)
            coming = mine & self._working.keys()
            found |= coming
            needed = place.table != _RAW or self._tracking.exists()
            try:
                if needed and coming != mine:
                    found |= (await self._trusted(place)).in_force & mine
                elif not needed:
                    found |= mine
            except KernelError as error:
                if place.table == _RAW and error.errno == errno.ENOSYS:
                    found |= mine
        return frozenset(found)

    def ours(self, facts: Iterable[Rule]) -> frozenset[Rule]:
        """Return those of `facts` that we have put in place and not taken away."""
        return frozenset(fact for fact in facts if entry(fact) in self._record.chains)

    async def give(self, fact: Rule) -> None:
        """Put the rule, and the jump to our chain, in place; without waiting where none is needed.

        Raises `KernelError`; for what is tried in the background the next call does.
        """
        if entry(fact) not in self._record.chains:
            self._record.chains.add(entry(fact))
            self._record.save()
        if isinstance(fact, Untracked) and fact not in self._refused:
            self._start(fact, self._try(fact))
        else:
            await self._give(fact)
            self._refused.discard(fact)

    async def take(self, fact: Rule) -> None:
        """Take the rule away, and with the last one our chain.  Raises `KernelError`."""
        place = _place(fact)
        async with self._one_at_a_time:
            self._seen.pop(place, None)
            seen = await self._known(place)
            if seen.exists:
                await self._write(place, seen.rules - {fact})
            self._record.chains.discard(entry(fact))
            self._record.save()

    async def close(self) -> None:
        """Wait for what goes on in the background; each process has its deadline."""
        await asyncio.gather(*self._working.values(), return_exceptions=True)

    def _start(self, key: Rule | Place, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._working[key] = task
        task.add_done_callback(lambda _: self._working.pop(key, None))

    async def _try(self, fact: Rule) -> None:
        try:
            await self._give(fact)
        except KernelError:
            self._refused.add(fact)  # it does not hold, so it will be tried in the foreground

    async def _give(self, fact: Rule) -> None:
        async with self._one_at_a_time:
            place = _place(fact)
            await self._write(place, (await self._known(place)).rules | {fact})

    async def _trusted(self, place: Place) -> Seen:
        """Return what was seen last, looked at again in the background when that is long ago."""
        if place not in self._seen:
            async with self._one_at_a_time:
                return await self._known(place)
        seen, then = self._seen[place]
        old = asyncio.get_running_loop().time() >= then + RECHECK
        if old and place not in self._working:
            self._start(place, self._look_again(place))
        return seen

    async def _look_again(self, place: Place) -> None:
        async with self._one_at_a_time:
            try:
                await self._known(place)
            except KernelError:
                self._seen.pop(place, None)  # the next look is in the foreground

    async def _known(self, place: Place) -> Seen:
        now = asyncio.get_running_loop().time()
        seen, then = self._seen.get(place, (Seen(), -RECHECK))
        if now >= then + RECHECK:
            seen = parsed(place, await self._listed(place, now))
            self._seen[place] = seen, now
        return seen

    async def _listed(self, place: Place, now: float) -> str:
        """Return the table's rules; the first time by each tool, until one works."""
        if tool := self._tools.get(place.version):
            code, text = await _run([tool, *_list(place)])
            if code:
                raise _complaint(f"iptables -t {place.table} -S", code, text)
            return text
        refused, then = self._lacking.get(place.version, (None, 0.0))
        if refused is not None and now < then + RECHECK:
            raise refused
        try:
            self._tools[place.version], text = await _working_tool(place)
        except KernelError as error:
            self._lacking[place.version] = error, now
            raise
        return text

    async def _write(self, place: Place, rules: frozenset[Rule]) -> None:
        """Let our chain have these rules, or not exist when there are none."""
        seen, then = self._seen[place]
        tool = f"{self._tools[place.version]}-restore"
        text = "\n".join([f"*{place.table}", *_changes(place, seen, rules), "COMMIT", ""])
        code, said = await _run([tool, "-w", LOCK_WAIT, "--noflush"], text)
        if code:
            self._seen.pop(place, None)
            raise _complaint(f"change chain {place.chain} by {tool}", code, said)
        after = Seen(exists=bool(rules), jumps=(seen.jumps or 1) if rules else 0, rules=rules)
        self._seen[place] = after, then


_RAW = "raw"


def _list(place: Place) -> tuple[str, ...]:
    return ("-w", LOCK_WAIT, "-t", place.table, "-S")


def entry(fact: Rule) -> str:
    """Return how the record names a rule."""
    if isinstance(fact, Snat):
        return at(fact.address, fact.port)
    return f"{fact.link} {at(fact.address, fact.port)} from {fact.source or 'anybody'}"


def parsed(place: Place, text: str) -> Seen:
    """Read what `iptables -S` prints of a whole table; foreign chains may be long."""
    lines = [shlex.split(line) for line in text.splitlines() if place.chain in line]
    ours = [dict(pairwise(words)) for words in lines if words[:2] == ["-A", place.chain]]
    icmp = {_ends(each) for each in ours if "--dport" not in each}
    whole = (each for each in ours if "--vaddr" in each or _ends(each) in icmp)
    return Seen(
        exists=["-N", place.chain] in lines,
        jumps=lines.count(["-A", place.hook, "-j", place.chain]),
        rules=frozenset(rule for each in whole if (rule := _rule(each)) is not None),
    )


def _ends(options: dict[str, str]) -> tuple[str | None, ...]:
    return tuple(options.get(each) for each in ("-i", "-s", "-d"))


def _place(fact: Rule) -> Place:
    version = fact.address.version
    if isinstance(fact, Snat):
        return Place(version, "nat", "POSTROUTING", "REVIP-POSTROUTING")
    return Place(version, _RAW, "PREROUTING", "REVIP-PREROUTING")


def _changes(place: Place, seen: Seen, rules: frozenset[Rule]) -> Iterable[str]:
    """Yield lines for iptables-restore: a chain that is declared is emptied first."""
    if not rules:
        yield from [f"-D {place.hook} -j {place.chain}"] * seen.jumps
        yield from (f"-F {place.chain}", f"-X {place.chain}")
        return
    yield f":{place.chain} - [0:0]"
    for rule in sorted(rules, key=str):
        yield from (f"-A {place.chain} {match}" for match in _matches(rule))
    if not seen.jumps:
        # First, so that no network plug-in's rule ends the way before us; the matches are
        # narrow enough not to take anything from it.
        yield f"-I {place.hook} 1 -j {place.chain}"


def _matches(fact: Rule) -> tuple[str, ...]:
    if isinstance(fact, Snat):
        return (f"-m ipvs --vaddr {fact.address} --vport {fact.port} -j MASQUERADE",)
    icmp = "icmp" if fact.address.version == 4 else "ipv6-icmp"
    sender = f" -s {fact.source}" if fact.source else ""
    there = f"-i {fact.link}{sender} -d {fact.address}"
    return (
        # An ICMP error about a connection that is not tracked would be invalid, too.
        f"{there} -p {icmp} -j CT --notrack",
        f"{there} -p tcp --dport {fact.port} -j CT --notrack",
    )


def _rule(options: dict[str, str]) -> Rule | None:
    """Read one rule of ours; None when it is not of our form; half a pair is none."""
    match options:
        case {"-j": "MASQUERADE", "--vaddr": address, "--vport": port} if port.isdigit():
            return Snat(_address(address), Port(int(port)))
        case {"-j": "CT", "-i": link, "-d": address, "--dport": port} if port.isdigit():
            source = _address(options["-s"]) if "-s" in options else None
            return Untracked(LinkName(link), _address(address), Port(int(port)), source)
        case _:
            return None


def _address(text: str) -> IPAddress:
    return ip_address(text.partition("/")[0])


async def _working_tool(place: Place) -> tuple[str, str]:
    """Choose the flavor whose tables this host uses already, then any that works.

    Return what it lists, too.  Raises `KernelError`, ENOSYS, when there is none.
    """
    name = "iptables" if place.version == 4 else "ip6tables"
    candidates = [name, f"{name}-legacy"]
    with contextlib.suppress(OSError):  # no legacy tables in use
        if place.table in _LEGACY_TABLES[place.version].read_text(encoding="ascii").split():
            candidates.reverse()
    complaint = ["not installed"]
    for tool in candidates:
        code, text = await _run([tool, *_list(place)])
        if code == 0:
            return tool, text
        complaint = text.strip().splitlines() or complaint
    sentence = f"no working {name} ({complaint[-1]}); install iptables, or use forwarding: direct"
    raise refusal(errno.ENOSYS, f"run {name}", sentence)


async def _run(command: Sequence[str], given: str = "") -> tuple[int, str]:
    """Return exit code and output; 127 when there is no such program."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        return 127, f"{command[0]}: {error.strerror}"
    try:
        async with asyncio.timeout(DEADLINE):
            output, _ = await process.communicate(given.encode("ascii"))
    except TimeoutError as error:
        sentence = f"no answer in {DEADLINE:g} s"
        raise refusal(errno.ETIMEDOUT, f"run {command[0]}", sentence) from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, output.decode(errors="replace")


def _complaint(operation: str, code: int, text: str) -> KernelError:
    said = (text.strip().splitlines() or ["refused without a word"])[-1]
    sentence = (
        f"{said}; are the modules xt_ipvs and xt_CT available? run `modprobe -a xt_ipvs xt_CT`"
    )
    return refusal(errno.EPERM if code == 4 else errno.EINVAL, operation, sentence)
