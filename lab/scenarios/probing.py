"""Every way in which an apiserver can be ill, and what the table does about it."""

from __future__ import annotations

from lab.cluster import Cluster, milliseconds, now
from lab.scenario import Run, scenario

SLOW = 20.0


@scenario("ill-servers-leave-and-return", "hangs, garbage, wrong certificates: out, then back")
def ill_servers_leave_and_return(run: Run) -> None:
    """Switch one apiserver through all that a TCP check would not see; row 24."""
    with Cluster(run, adjust=patient) as cluster:
        for mode in (
            "hang-after-accept",
            "hang-in-tls",
            "garbage",
            "half-closed",
            "wrong-certificate",
            "expired-certificate",
            "refuse",
        ):
            began = now()
            cluster.control("n2").set(mode)
            gone = cluster.until(cluster.all_but("n2"), SLOW)
            run.figure(f"{mode}_removed_ms", milliseconds(began, gone))
            reason = next(
                b["reason"] for b in cluster.server_status("n1")["backends"] if b["name"] == "n2"
            )
            run.say(f"{mode}: {reason}")
            cluster.control("n2").set("serving")
            began = now()
            back = cluster.until(cluster.everybody(), SLOW)
            run.figure("served_again_readded_ms", milliseconds(began, back))


def patient(document: dict[str, object], _: str) -> None:
    """Let flap damping be: these are many changes on purpose."""
    servers = document["virtual_servers"]
    assert isinstance(servers, list)
    servers[0]["health"] = {"damping_changes": 100}


@scenario("denied-is-alive", "anonymous access closed (401, 403): a living server stays in")
def denied_is_alive(run: Run) -> None:
    """Answer 401 and 403 from all apiservers; pain-points row 25."""
    with Cluster(run) as cluster:
        for status in (401, 403):
            for name in cluster.nodes:
                cluster.control(name).set("deny", status=status)
            seen = cluster.steady(2.0)
            run.check(len(seen) == 1, f"HTTP {status} removes nobody: {seen}")
        backend = cluster.server_status("n1")["backends"][0]
        reason = backend["last_probe"]["reason"]
        run.check("token_file" in reason, f"the reason tells the mend: {reason}")


@scenario("flapping-is-damped-and-returns", "twelve deaths in a row: held back, then always back")
def flapping_is_damped_and_returns(run: Run) -> None:
    """Kill and restart one apiserver until it is damped; it returns within the bound."""

    def quick(document: dict[str, object], _: str) -> None:
        servers = document["virtual_servers"]
        assert isinstance(servers, list)
        servers[0]["health"] = {"damping_hold": "1s", "damping_hold_max": "3s"}

    with Cluster(run, adjust=quick) as cluster:
        for _ in range(7):
            cluster.kill("n2")
            cluster.until(cluster.all_but("n2"), SLOW)
            began = cluster.start("n2")
            back = cluster.until(cluster.everybody(), SLOW)
            run.figure("back_ms", max(0.0, milliseconds(began, back)))
        held = any("held back" in text for text in cluster.told("n1", "backend.verdict"))
        run.say(f"the log says that it was held back: {held}")
        run.check(milliseconds(began, back) > 900, "the last return was held back")
