"""The sync daemons follow the role, and their order at a move."""

from __future__ import annotations

from revip.model.host import Sysctl
from revip.model.ipvs import Port, ServiceKey, VirtualServer
from revip.model.sync import SyncDaemon
from tests.agent.fakes import Stage
from tests.agent.test_agent import VIP, played
from tests.agent.test_electing import LEFT, PEER, TOOK, elected, leads

SYNC = "dev eth0 syncid 51 group 224.0.0.81"
STARTED, STOPPED = f"give sync daemon {{}} {SYNC}", f"take sync daemon {{}} {SYNC}"


def running(stage: Stage) -> set[str]:
    return {f.role.name.lower() for f in stage.host.holds if isinstance(f, SyncDaemon)}


def backup_only(stage: Stage) -> str:
    (value,) = (
        fact.value
        for fact in stage.host.holds
        if isinstance(fact, Sysctl) and fact.name == "net.ipv4.vs.backup_only"
    )
    return value


def place(stage: Stage, deed: str) -> int:
    return next(i for i, done in enumerate(stage.kernel.deeds) if done.startswith(deed))


@played
async def test_a_follower_listens_with_ipvs_off() -> None:
    async with Stage(elected()) as stage:
        for _ in range(4):
            stage.speaker.hear(PEER, 200)
            await stage.pass_by(0.5)
        assert running(stage) == {"backup"}
        assert backup_only(stage) == "1"


@played
async def test_ipvs_stays_on_where_others_use_it() -> None:
    async with Stage(elected()) as stage:
        other = ServiceKey(VIP, Port(9))
        stage.kernel.table[other] = VirtualServer(other)
        for _ in range(4):
            stage.speaker.hear(PEER, 200)
            await stage.pass_by(0.5)
        assert running(stage) == {"backup"}
        assert backup_only(stage) == "0"


@played
async def test_who_takes_over_stops_listening_and_tells_before_it_has_the_address() -> None:
    async with Stage(elected()) as stage:
        await leads(stage)
        assert running(stage) == {"master"}
        stopped, started = (
            place(stage, STOPPED.format("backup")),
            place(stage, STARTED.format("master")),
        )
        assert stopped < started < place(stage, TOOK)


@played
async def test_who_gives_it_away_has_ipvs_on_until_its_table_has_gone() -> None:
    async with Stage(elected()) as stage:
        await leads(stage)
        stage.speaker.hear(PEER, 200)
        await stage.until(lambda: not stage.host.addresses())
        await stage.pass_by(0.2)
        assert stage.kernel.table
        assert running(stage) == {"master", "backup"}, "it hears the successor at once"
        assert backup_only(stage) == "0"
        for _ in range(4):
            stage.speaker.hear(PEER, 200)
            await stage.pass_by(0.5)
        assert not stage.kernel.table
        assert running(stage) == {"backup"}
        deeds = stage.kernel.deeds
        assert place(stage, LEFT) < deeds.index("take sync daemon master " + SYNC)


@played
async def test_who_stops_leaves_a_listener() -> None:
    stage = Stage(elected())
    async with stage:
        await leads(stage)
    assert not stage.kernel.table
    assert running(stage) == {"backup"}
