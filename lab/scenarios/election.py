"""The director is elected: the virtual IP moves when its holder stops, dies or freezes."""

from __future__ import annotations

import random
import signal
import socket
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Self

from lab import clients
from lab.capture import who_answers
from lab.cluster import Cluster, Config, milliseconds, now
from lab.forking import inside
from lab.net import LINK, routes
from lab.observer import messages
from lab.pinger import answers, longest_silence, ping
from lab.scenario import Run, scenario
from lab.scenarios.announcing import SLOW, finished, gap, opened, wait

STREAMS = 12
PINGS = 250
"""A second; more, and asking is all that the one processor of user-mode Linux does."""
PRIORITIES = {"n1": 150, "n2": 120, "n3": 100}
LIFETIME = 3.0
RTM_NEWADDR, RTM_DELADDR = 20, 21
RTMGRP_ADDRESSES = 0x10 | 0x100
"""RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR of <linux/rtnetlink.h>."""
FROZEN = 1.1 + 1.0 + 0.3
"""Seconds: the keeper's patience, the skew of the successor, and its time to get ready."""
NOISE = 1_000
"""Milliseconds: an ARP question and its wait, on one busy processor."""


def elected(interval: str) -> Callable[[Config, str], None]:
    """Return what makes a node's configuration one of an election."""

    def adjust(document: Config, node: str) -> None:
        server = document["virtual_servers"][0]
        del server["owner"]
        server["election"] = {
            "kind": "vrrp",
            "vrid": 51,
            "priority": PRIORITIES[node],
            "advert_interval": interval,
        }
        server["health"] = {"timeout": "5s", "connect_timeout": "2s"}

    return adjust


def answering(cluster: Cluster) -> set[str]:
    """Return the nodes that answer for the VIP, as a client on the segment hears."""
    with cluster.lab.network.inside("c1"):
        heard = set(who_answers(LINK, cluster.vip))
    return {name for name in cluster.nodes if cluster.lab.network[name].mac in heard}


def present(cluster: Cluster, node: str) -> bool:
    """Return whether the VIP is on the node's real interface."""
    with routes(cluster.lab.network[node].namespace) as rtnl:
        index = rtnl.link_lookup(ifname=LINK)[0]
        return bool(tuple(rtnl.get_addr(index=index, address=str(cluster.vip))))


@scenario("planned-handover", "SIGTERM of the elected director under load: nothing is lost")
def planned_handover(run: Run) -> None:
    """Stop the leader's agent; its successor must be there before it lets go."""
    _move(run, "1s", signal.SIGTERM)


@scenario("planned-handover-v6", "the same in IPv6: SIGTERM under load, nothing is lost")
def planned_handover_v6(run: Run) -> None:
    """Stop the leader's agent; adverts and the VIP are IPv6."""
    _move(run, "1s", signal.SIGTERM, family=6)


@scenario("agent-killed", "kill -9 of the elected director's agent, adverts each 100 ms")
def agent_killed(run: Run) -> None:
    """Kill the leader's agent; the kernel takes the address from its node."""
    _move(run, "100ms", signal.SIGKILL)


@scenario("agent-killed-v6", "the same in IPv6: kill -9 of the director's agent")
def agent_killed_v6(run: Run) -> None:
    """Kill the leader's agent; adverts and the VIP are IPv6."""
    _move(run, "100ms", signal.SIGKILL, family=6)


def _move(run: Run, interval: str, number: int, family: int = 4) -> None:
    with Cluster(run, family=family, adjust=elected(interval)) as cluster:
        held = cluster.streams(STREAMS)
        wait(lambda: opened(held.path) == STREAMS, "the streams are open")
        load = cluster.load(kept_rate=50, new_rate=20)
        time.sleep(4.0)
        at = now()
        cluster.agents["n1"].kill(number)
        wait(lambda: cluster.server_status("n2")["role"] == "director", "n2 directs")
        run.figure("until_the_successor_says_so_ms", milliseconds(at, now()))
        wait(lambda: answering(cluster) == {"n2"}, "only n2 answers")
        run.figure("until_one_answers_ms", milliseconds(at, now()))
        time.sleep(1.0)
        seen, streams = load.finish(), finished(held.process, held.path)
        lost = [stream.backend for stream in streams if stream.fate != "alive"]
        opening = [r for r in clients.read_requests(load.path) if r.error is None]
        run.figure("requests", len(opening))
        run.figure("failed_requests", seen.failures)
        run.figure("longest_gap_before_ms", gap(load.path, 0, at))
        run.figure("longest_gap_ms", gap(load.path, at, at + 5_000_000_000))
        run.figure(f"streams_lost_of_{STREAMS}", len(lost))
        run.check(seen.failures == 0, f"no request failed: {seen.by_error}")
        run.check(len(lost) <= 1, f"streams lost: {lost}")


@scenario("handover-by-hand", "`revip handover` and back under load: nothing is lost")
def handover_by_hand(run: Run) -> None:
    """Give the address away, see that it is not taken back, and take it back by hand."""
    with Cluster(run, adjust=elected("1s")) as cluster:
        held = cluster.streams(STREAMS)
        wait(lambda: opened(held.path) == STREAMS, "the streams are open")
        load = cluster.load(kept_rate=50, new_rate=20)
        path = run.directory / "ping.txt"
        pinger = cluster.lab.spawn("c1", ping, str(cluster.vip), path, PINGS)
        time.sleep(3.0)
        moves = []
        for taker, to in (("n2", None), ("n1", "n1")):
            moves.append(_by_hand(run, cluster, taker, to))
        pinger.kill(signal.SIGTERM)
        pinger.wait(10)
        seen, streams = load.finish(), finished(held.process, held.path)
        echoes = answers(path)
        quiet = longest_silence(echoes, moves[0] - 2_500_000_000, moves[0])
        run.figure("longest_ping_gap_before_ms", quiet)
        for at in moves:
            run.figure("longest_ping_gap_ms", longest_silence(echoes, at, at + 5_000_000_000))
        lost = [stream.backend for stream in streams if stream.fate != "alive"]
        run.figure("failed_requests", seen.failures)
        run.figure(f"streams_lost_of_{STREAMS}", len(lost))
        run.check(seen.failures == 0, f"no request failed: {seen.by_error}")
        run.check(not lost, f"no stream was lost: {lost}")


def _by_hand(run: Run, cluster: Cluster, taker: str, to: str | None) -> int:
    """Ask n1 for a hand-over, see `taker` direct and go on; return when it was asked."""
    at = now()
    said = cluster.ask("n1", "handover", seconds=20.0, to=to)
    run.figure("answered_after_ms", milliseconds(at, now()))
    run.check(f"{taker} " in said, f"n1 says who directs: {said}")
    wait(lambda: answering(cluster) == {taker}, f"only {taker} answers")
    run.figure("until_one_answers_ms", milliseconds(at, now()))
    time.sleep(6.0)
    run.check(answering(cluster) == {taker}, f"{taker} still directs after 6 s")
    return at


@scenario("agent-frozen", "SIGSTOP of the elected director's agent, and SIGCONT")
def agent_frozen(run: Run) -> None:
    """Freeze the leader's agent: its keeper gives the VIP away; woken, it looks first."""
    with Cluster(run, adjust=elected("1s")) as cluster:
        held = cluster.streams(STREAMS)
        wait(lambda: opened(held.path) == STREAMS, "the streams are open")
        load = cluster.load(kept_rate=20, new_rate=10)
        time.sleep(2.0)
        at = now()
        cluster.agents["n1"].stop()
        wait(lambda: answering(cluster) == {"n2"}, "only n2 answers")
        took = milliseconds(at, now())
        run.figure("frozen_until_one_answers_ms", took)
        run.check(took <= FROZEN * 1000 + NOISE, f"silent after {took:.0f} ms")
        time.sleep(2.0)
        cluster.agents["n1"].cont()
        woken = time.monotonic() + 2.0
        seen: set[str] = set()
        while time.monotonic() < woken:
            seen |= answering(cluster)
        run.check(seen == {"n2"}, f"the woken node looks before it speaks: {seen}")
        requests, streams = load.finish(), finished(held.process, held.path)
        lost = [stream.backend for stream in streams if stream.fate != "alive"]
        run.figure("failed_requests", requests.failures)
        run.check(requests.failures == 0, f"no request failed: {requests.by_error}")
        run.check(not lost, f"no stream was lost: {lost}")


DELETIONS = 4
"""From the fifth within a minute on the agent takes it for a fight, and paces itself."""


@scenario("vip-deleted", "the elected virtual IP is deleted by hand, and comes back")
def vip_deleted(run: Run) -> None:
    """Delete the leased address on the director's interface."""
    _delete(run, 4)


@scenario("vip-deleted-v6", "the same in IPv6: deleted by hand, and back")
def vip_deleted_v6(run: Run) -> None:
    """Delete the leased IPv6 address on the director's interface."""
    _delete(run, 6)


def _delete(run: Run, family: int) -> None:
    with Cluster(run, family=family, adjust=elected("1s")) as cluster:
        node, bits = cluster.lab.network["n1"], cluster.vip.max_prefixlen
        time.sleep(2.0)  # the start's own work is over
        with routes(node.namespace) as rtnl, AddressNews(node.namespace) as news:
            index = rtnl.link_lookup(ifname=LINK)[0]
            for _ in range(DELETIONS):
                at = now()
                rtnl.addr("del", index=index, address=str(cluster.vip), prefixlen=bits)
                took = milliseconds(at, news.returned(cluster.vip, SLOW))
                run.figure("deletion_until_back_ms", took)
                run.check(took <= 1000, f"it is back after {took:.0f} ms")
                time.sleep(0.3 + 0.1 * random.random())
        run.check(answering(cluster) == {"n1"}, "n1 answers")
        shown = cluster.run_in("n1", "ip", "addr", "show", "dev", LINK)
        run.check(
            "valid_lft forever" not in shown.split(f"{cluster.vip}/{bits}")[1][:120],
            f"it has a lifetime: {shown}",
        )


class AddressNews:
    """What rtnetlink(7) tells of addresses; waiting for it costs the guest nothing."""

    def __init__(self, namespace: str) -> None:
        with inside(namespace):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, RTMGRP_ADDRESSES))

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the socket."""
        self._socket.close()

    def returned(self, address: IPv4Address | IPv6Address, seconds: float) -> int:
        """Wait until the address is deleted and added again; return when that was told."""
        gone = False
        self._socket.settimeout(seconds)
        while True:
            told = self._socket.recv(65536)
            for kind, _, payload in messages(told):
                if address.packed not in payload:
                    continue
                if kind == RTM_DELADDR:
                    gone = True
                elif kind == RTM_NEWADDR and gone:
                    return now()
