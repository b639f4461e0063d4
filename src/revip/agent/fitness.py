"""How fit this node is to direct one virtual server, as a VRRP priority."""

from __future__ import annotations

from revip.model.health import Verdict
from revip.model.ipvs import IPAddress
from revip.model.spec import VrrpSpec
from revip.model.vrrp import STOPPING
from revip.planner.pool import PoolMode
from revip.planner.service import Service

UNWELL = 50
"""How much lower the priority is while the node's own server is not healthy."""
ALONE = 40
"""And while its own is the only one of several that it can reach.

It may be cut off from the segment.  When it is back, whoever took over knows all the servers, and
it must not take their streams before it knows them again.  Less than `UNWELL`, so that where the
others are dead indeed, the node whose own server lives goes on to direct.
"""


def fitness(
    vrrp: VrrpSpec, service: Service | None, own: IPAddress | None, *, waits: bool
) -> tuple[int, str]:
    """Return the priority (0 stands aside) and why; `own` is this node's own address.

    A cause that all servers share lowers nothing: the others are no better off.
    """
    if waits:
        return STOPPING, "paused by the operator"
    if service is None or service.pool is None or service.pool.mode is PoolMode.EMPTY:
        return STOPPING, "there are no backends yet"
    healths = {entry.backend.address: entry.state.health for entry in service.entries.values()}
    for address, health in healths.items():
        if address == own and health.verdict is not Verdict.HEALTHY:
            if service.cause is not None:
                break
            text = f"the server of this node is {health.verdict.value}: {health.reason}"
            return max(1, vrrp.priority - UNWELL), text
    others = [health.verdict for address, health in healths.items() if address != own]
    if own in healths and others and set(others) == {Verdict.UNHEALTHY} and service.cause is None:
        text = "of all servers only this node's own can be reached: it may be cut off"
        return max(1, vrrp.priority - ALONE), text
    return vrrp.priority, "this node is well"
