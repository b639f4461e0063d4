"""One history: a seed makes the cluster, its faults and all its chances."""

from __future__ import annotations

import gc
import random
from dataclasses import dataclass

from tests.simulation import faults, setup
from tests.simulation.faults import Fault
from tests.simulation.violation import Violation
from tests.simulation.world import World

MINUTES = 10


@dataclass(frozen=True)
class Outcome:
    """What became of one history."""

    seed: int
    minutes: int
    kept: tuple[int, ...] | None
    """Which faults of the schedule were let happen; None is all."""
    faults: int
    events: int
    digest: int
    guarantee: str = ""
    """What was broken, if anything; `error` is an exception of the code under test."""
    text: str = ""
    failed_at: int = 0

    @property
    def ok(self) -> bool:
        return not self.guarantee

    @property
    def replay(self) -> str:
        """The command that runs exactly this history again."""
        kept = "" if self.kept is None else f" --only {','.join(map(str, self.kept)) or 'none'}"
        minutes = "" if self.minutes == MINUTES else f" --minutes {self.minutes}"
        return f"script/simulate --replay {self.seed}{minutes}{kept}"


def schedule(seed: int, minutes: int = MINUTES) -> tuple[random.Random, setup.Setup, list[Fault]]:
    """Draw the cluster and its faults; the dice goes on to the world."""
    dice = random.Random(seed)
    cluster = setup.draw(dice)
    # The last faults end early enough for every bound to be asked for in peace.
    calm = max(cluster.damped_comeback, cluster.succession) + cluster.backoff + 5_000
    until = max(minutes * 60_000 - calm, minutes * 20_000)
    return dice, cluster, faults.draw(dice, cluster, until)


def run(
    seed: int,
    minutes: int = MINUTES,
    kept: tuple[int, ...] | None = None,
    *,
    loud: bool = False,
    until: int | None = None,
) -> Outcome:
    """Live through one history of so many virtual minutes."""
    dice, cluster, drawn = schedule(seed, minutes)
    world = World(cluster, dice, loud=loud)
    for host in world.hosts:
        world.at(dice.randrange(3000), host.boot)
    chosen = range(len(drawn)) if kept is None else kept
    for number in chosen:
        world.at(drawn[number].at, drawn[number].begin, world)
    gc.disable()  # a world is one big cycle: it is given back at the end, all at once
    try:
        world.run(until or minutes * 60_000)
        guarantee, text = "", ""
    except Violation as violation:
        guarantee, text = violation.guarantee, str(violation)
    except Exception as error:
        if loud:
            raise
        where = _where(error)
        guarantee, text = "error", f"{type(error).__name__} at {where}: {error}"
    finally:
        gc.enable()
    return Outcome(
        seed, minutes, kept, len(chosen), world.events, world.digest, guarantee, text, world.now
    )


def _where(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
