"""`revip check`: the configuration, this host, and every backend, looked at once.

With `--json` one object is printed; keys are added, never renamed:

    {"schema": "revip.check/v1", "ok": true, "config": "/etc/revip/revip.yaml",
     "checks": [{"level": "ok", "check": "rights", "what": "...", "mend": ""}],
     "bounds": [{"virtual_server": "api", "removal_ms": 3550, "return_ms": 3550,
                 "return_after_flapping_ms": 63550}]}

`level` is `ok`, `warn` or `fail`; `ok` is false when any of them is `fail` (exit code 1).  A
configuration that cannot be used is exit code 2 and

    {"schema": "revip.check/v1", "ok": false,
     "problems": [{"origin": "FILE:LINE", "key": "...", "value": "...", "mend": "..."}]}
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from revip.adapters.preflight.standing import Check, Level
from revip.config.load import load
from revip.config.reference import explanation
from revip.errors import ConfigError
from revip.model.discovery import BackendsNews, BackendsRead, BackendsRefused
from revip.model.health import Backend, Finding, ProbeResult
from revip.model.instants import Span
from revip.model.spec import Spec, VirtualServerSpec
from revip.planner.bounds import removal_bound, return_bound
from revip.wiring import ask_each, discovered, survey

SCHEMA = "revip.check/v1"
AT_ONCE = Span(0)
"""How late a verdict reaches the table: bounds are told for a kernel that takes what it is told."""

_ALIVE = {Finding.READY: Level.OK, Finding.DENIED: Level.WARN, Finding.OURS: Level.FAIL}
_MENDS = {
    Finding.NOT_READY: "revip gives it weight 0 until it is ready",
    Finding.REFUSED: "start the server; revip takes it in when it answers",
    Finding.FAILED: "revip takes it in when it answers",
    Finding.OURS: "the fault is on this node: mend it here",
}


def check(config: Path | None, as_json: bool) -> int:
    """Look at everything that `config` needs and print what is found; return the exit code."""
    try:
        spec = load(config, os.environ, socket.gethostname().partition(".")[0])
    except ConfigError as error:
        if not as_json:
            raise
        problems = [asdict(problem) for problem in error.problems]
        print(json.dumps({"schema": SCHEMA, "ok": False, "problems": problems}, indent=2))
        return 2
    checks = tuple(look(spec))
    ok = all(each.level is not Level.FAIL for each in checks)
    if as_json:
        print(json.dumps(document(config, spec, checks, ok), indent=2, ensure_ascii=False))
    else:
        show(spec, checks)
    return 0 if ok else 1


def explain() -> int:
    """Print every key of the configuration and its meaning."""
    print(explanation(), end="")
    return 0


def look(spec: Spec) -> Iterator[Check]:
    """Yield every check of `spec` on this host; asks every backend once."""
    for warning in spec.warnings:
        yield Check("configuration", Level.WARN, warning)
    servers: list[VirtualServerSpec] = []
    for server in spec.virtual_servers:
        news = discovered(server)
        yield from _judge_news(server, news)
        known = news.backends if isinstance(news, BackendsRead) else server.backends
        servers.append(replace(server, backends=known))
    yield from survey(replace(spec, virtual_servers=tuple(servers)))
    for server, answers in zip(servers, asyncio.run(_ask(servers)), strict=True):
        yield from _judge_backends(server, answers)


def bounds(server: VirtualServerSpec) -> str:
    """Say in words how late a death is answered and a recovery honored."""
    removed, returned, flapped = map(seconds, _bounds(server))
    crash = " at worst (a crash in about 20 ms)" if server.probe.held else " at worst"
    text = f"a dead backend is out within {removed}{crash}, a recovered one back within {returned}"
    return f"{text}, {flapped} after flapping" if flapped != returned else text


def seconds(length: Span) -> str:
    """Write a bound, rounded up so that the promise holds: `3.6 s`."""
    return f"{-(-length // 100) / 10:g} s"


def _bounds(server: VirtualServerSpec) -> tuple[Span, Span, Span]:
    timing = server.health
    return (
        removal_bound(timing, reconcile=AT_ONCE, backoff=AT_ONCE),
        return_bound(timing, reconcile=AT_ONCE, backoff=AT_ONCE, damped=False),
        return_bound(timing, reconcile=AT_ONCE, backoff=AT_ONCE),
    )


async def _ask(servers: Sequence[VirtualServerSpec]) -> list[dict[Backend, ProbeResult]]:
    return await asyncio.gather(*map(ask_each, servers))


def _judge_news(server: VirtualServerSpec, news: BackendsNews | None) -> Iterator[Check]:
    title = f"backends file of {server.name}"
    match news:
        case BackendsRead(backends):
            yield Check(title, Level.OK, f"lists {len(backends)}")
        case BackendsRefused(problems):
            level = Level.WARN if news.missing and server.backends else Level.FAIL
            for problem in problems:
                shown = f" = {problem.value}" if problem.value else ""
                subject = f"{problem.origin}: {problem.key}{shown}".rstrip(": ")
                yield Check(title, level, subject, problem.mend)
        case None:
            return


def _judge_backends(
    server: VirtualServerSpec, answers: dict[Backend, ProbeResult]
) -> Iterator[Check]:
    for backend, result in answers.items():
        level = _ALIVE.get(result.finding, Level.WARN)
        what = f"{result.finding.value}: {result.reason}"
        what += f", {result.latency} ms" if result.finding is Finding.READY else ""
        title = f"backend {backend.name}"
        yield Check(title, level, what, _MENDS.get(result.finding, ""))
    ready = sum(result.finding in (Finding.READY, Finding.DENIED) for result in answers.values())
    title = f"pool {server.name}"
    if ready < max(1, server.panic_threshold):
        what = f"{ready} of {len(answers)} backends are ready, panic_threshold is "
        what += str(server.panic_threshold)
        mend = "until more are, revip keeps all of them in (panic)"
        yield Check(title, Level.FAIL, what, mend)
    else:
        yield Check(title, Level.OK, f"{ready} of {len(answers)} backends are ready")


def document(
    config: Path | None, spec: Spec, checks: Iterable[Check], ok: bool
) -> dict[str, object]:
    """Return what `--json` prints, as laid out above."""
    names = ("removal_ms", "return_ms", "return_after_flapping_ms")
    return {
        "schema": SCHEMA,
        "ok": ok,
        "config": None if config is None else str(config),
        "checks": _rows(checks),
        "bounds": [
            {"virtual_server": server.name, **dict(zip(names, _bounds(server), strict=True))}
            for server in spec.virtual_servers
        ],
    }


def _rows(checks: Iterable[Check]) -> list[dict[str, str]]:
    return [
        {"level": each.level.value, "check": each.name, "what": each.what, "mend": each.mend}
        for each in checks
    ]


def show(spec: Spec, checks: Sequence[Check]) -> None:
    """Print one table, the bounds in words, and a count."""
    if sys.stdout.isatty():
        from revip.cli import view

        view.console().print(view.checks(_rows(checks)))
    else:
        widest = max(len(each.name) for each in checks)
        for each in checks:
            mend = f" -> {each.mend}" if each.mend else ""
            print(f"{each.level.value:<4}  {each.name:<{widest}}  {each.what}{mend}")
    for server in spec.virtual_servers:
        print(f"{server.name}: {bounds(server)}")
    count = {level: sum(each.level is level for each in checks) for level in Level}
    print(f"{count[Level.FAIL]} failed, {count[Level.WARN]} to look at, {count[Level.OK]} well")
