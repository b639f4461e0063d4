"""keepalived's configuration for the same task, as keepalived.conf(5) of 2.2 describes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.places import LabError, program


@dataclass(frozen=True, slots=True)
class Checks:
    """How keepalived looks after its real servers.  Seconds."""

    delay_loop: float
    """Between checks."""
    connect_timeout: float
    """Until a connection that gets no answer is given up."""
    retry: int = 1
    """Further checks that must fail, too; revip confirms a failure once as well."""
    delay_before_retry: float = 0.1
    """Before each of those; keepalived's own default is 3 s."""
    inhibit_on_failure: bool = False
    """Weight 0 instead of removal, so that established connections go on."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is balanced."""

    address: str
    port: int
    interface: str
    real_servers: Sequence[str]


@dataclass(frozen=True, slots=True)
class Member:
    """A node's part in the VRRP group; by default it is alone, and master at once."""

    state: str = "MASTER"
    priority: int = 255
    advert: float = 1.0
    """Seconds between adverts; VRRP version 3 when it is less than one."""
    sync: bool = False
    """Run the kernel's connection sync daemon, started and switched by keepalived."""
    alpha: bool = True
    """Start real servers as down, so that a filled table proves that the checks work."""


def configuration(task: Task, checks: Checks, member: Member | None = None) -> str:
    """Return a keepalived.conf with one virtual server, and the VRRP instance that has its VIP."""
    member = member or Member()
    flag = ["    inhibit_on_failure"] if checks.inhibit_on_failure else []
    lines = [
        "global_defs {",
        "    router_id bench",
        *(["    vrrp_version 3"] if member.advert < 1 else []),
        *([f"    lvs_sync_daemon {task.interface} api"] if member.sync else []),
        "}",
        "vrrp_instance api {",
        f"    state {member.state}",
        f"    interface {task.interface}",
        "    virtual_router_id 51",
        f"    priority {member.priority}",
        f"    advert_int {member.advert:g}",
        "    virtual_ipaddress {",
        f"        {task.address}/32 dev {task.interface}",
        "    }",
        "}",
        f"virtual_server {task.address} {task.port} {{",
        f"    delay_loop {checks.delay_loop:g}",
        "    lvs_sched mh",
        "    mh-port",
        "    mh-fallback",
        "    lvs_method DR",
        "    protocol TCP",
        *(["    alpha"] if member.alpha else []),
        *flag,
        *(line for address in task.real_servers for line in _real_server(address, task, checks)),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _real_server(address: str, task: Task, checks: Checks) -> list[str]:
    return [
        f"    real_server {address} {task.port} {{",
        "        weight 1",
        "        SSL_GET {",
        "            url {",
        "                path /readyz",
        "                status_code 200",
        "            }",
        f"            connect_timeout {checks.connect_timeout:g}",
        f"            retry {checks.retry}",
        f"            delay_before_retry {checks.delay_before_retry:g}",
        "        }",
        "    }",
    ]


def command(configuration_file: Path, folder: Path) -> list[str]:
    """Return how to run it in the foreground with all its files in `folder`."""
    found = program("keepalived")
    if found is None:
        raise LabError("keepalived is not here: run script/bootstrap")
    pids = {"-p": "keepalived.pid", "-r": "vrrp.pid", "-c": "checkers.pid"}
    arguments = [word for flag, name in pids.items() for word in (flag, str(folder / name))]
    return [found, "-f", str(configuration_file), "--dont-fork", "--log-console", *arguments]
