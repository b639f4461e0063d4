"""The client matrix: who must reach the VIP, in which way, among which neighbors.

    script/lab run client-matrix --thorough --json --events | .venv/bin/python -m lab.matrix --write

makes the tables of docs/forwarding.md from the events of a run.  A cell is a client, a forwarding
method, an IP version, the state of the client's local apiserver and the surroundings.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.places import REPOSITORY

PAGE = REPOSITORY / "docs/forwarding.md"
BEGIN, END = "<!-- matrix:begin -->\n", "<!-- matrix:end -->"


@dataclass(frozen=True, slots=True)
class Client:
    """A place that connections come from."""

    words: str
    member: str
    local: str
    """The node whose apiserver is down in the column of that name: its own host's, where it has
    one, else the leader's."""


CLIENTS = (
    Client("host on the segment", "c1", "n1"),
    Client("host behind a router", "far1", "n1"),
    Client("process on the leader", "n1", "n1"),
    Client("process on a follower", "n2", "n2"),
    Client("pod behind the leader", "pod1", "n1"),
    Client("pod behind a follower", "pod2", "n2"),
)
METHODS = (("direct", 4), ("direct", 6), ("masquerade", 4), ("masquerade", 6))
"""Forwarding method and IP version."""
PLAIN = "nothing else"
SYSCTLS = "sysctls put back"
SURROUNDINGS = (
    PLAIN,
    "kube-proxy",
    "pod masquerading",
    "ufw",
    "firewalld",
    "SYN as NEW only",
    SYSCTLS,
    "rules flushed",
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination; its fields are those of the event `cell`."""

    forwarding: str
    family: int
    surroundings: str
    client: str
    apiserver: str
    """`up` or `down`: that of `Client.local`."""

    def __str__(self) -> str:
        return (
            f"{self.forwarding}, IPv{self.family}, {self.surroundings}:"
            f" {self.client}, local apiserver {self.apiserver}"
        )


FORBIDDEN: Mapping[tuple[str, str], str] = {
    ("direct", "SYN as NEW only"): "the firewall sees one half of each connection",
}
"""Method and surroundings that cannot work, with the reason; the thorough run shows it."""


def everything() -> Iterator[Cell]:
    """Yield every cell, those of one cluster together."""
    for forwarding, family in METHODS:
        for surroundings in SURROUNDINGS:
            for apiserver in ("up", "down"):
                for client in CLIENTS:
                    yield Cell(forwarding, family, surroundings, client.words, apiserver)


def subset() -> Iterator[Cell]:
    """Yield what every run goes through.

    All clients meet all surroundings with direct IPv4; the other methods meet all clients with
    nothing else around, and each of the surroundings by one client, another one each time.
    """
    for cell in everything():
        method = METHODS.index((cell.forwarding, cell.family))
        turn = SURROUNDINGS.index(cell.surroundings) + method
        chosen = CLIENTS[turn % len(CLIENTS)].words == cell.client
        if (cell.forwarding, cell.surroundings) in FORBIDDEN or (
            method and cell.surroundings == SYSCTLS
        ):
            continue  # they take long, to show nothing
        if cell.apiserver == "down":
            if cell.surroundings == PLAIN and cell.client.startswith(("pod", "process")):
                yield cell
        elif method == 0 or cell.surroundings == PLAIN or chosen or _pods(cell):
            yield cell


def _pods(cell: Cell) -> bool:
    return cell.surroundings == "pod masquerading" and cell.client.startswith("pod")


# --- the tables ---------------------------------------------------------------------------------


def tables(results: Mapping[Cell, str]) -> str:
    """Return the Markdown of all results; a cell that was not run is a dash."""
    heads = [f"{forwarding}, IPv{family}" for forwarding, family in METHODS]
    parts = ["Nothing else on the nodes; local apiserver up / down:", ""]
    parts += _table("client", heads, _plain_rows(results))
    parts += ["", "All six clients together, among other things on every node; up / down:", ""]
    parts += _table("surroundings", heads, _rows_of_surroundings(results))
    return "\n".join(parts) + "\n"


def _plain_rows(results: Mapping[Cell, str]) -> Iterator[list[str]]:
    for client in CLIENTS:
        row = [client.words]
        for forwarding, family in METHODS:
            states = (
                results.get(Cell(forwarding, family, PLAIN, client.words, apiserver), "-")
                for apiserver in ("up", "down")
            )
            row.append(" / ".join(states))
        yield row


def _rows_of_surroundings(results: Mapping[Cell, str]) -> Iterator[list[str]]:
    for surroundings in SURROUNDINGS[1:]:
        row = [surroundings]
        for forwarding, family in METHODS:
            cells = [
                [Cell(forwarding, family, surroundings, c.words, state) for c in CLIENTS]
                for state in ("up", "down")
            ]
            row.append(" / ".join(_together([results.get(c, "-") for c in each]) for each in cells))
        yield row


def _together(results: Sequence[str]) -> str:
    """Add up cells: `48 of 50`."""
    pairs = [result.split(" of ") for result in results if " of " in result]
    if len(pairs) != len(results):
        return "-"
    return f"{sum(int(good) for good, _ in pairs)} of {sum(int(tried) for _, tried in pairs)}"


def _table(first: str, heads: Iterable[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [[first, *heads]]
    lines += [["---"] * len(lines[0]), *(list(row) for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def read(lines: Iterable[str]) -> dict[Cell, str]:
    """Return the results in the events of a run, `GOOD of TRIED` by cell."""
    results = {}
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("event") == "cell":
            cell = Cell(**{name: event[name] for name in Cell.__slots__})
            results[cell] = f"{event['good']} of {event['tried']}"
    return results


def written(page: str, results: Mapping[Cell, str]) -> str:
    """Return `page` with the tables between the marks replaced."""
    head, rest = page.split(BEGIN)
    return head + BEGIN + tables(results) + END + rest.split(END)[1]


def main() -> int:
    """Read a run's events on standard input; print the tables or write them into the page."""
    parser = argparse.ArgumentParser(prog="lab.matrix", description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"into {Path(PAGE).name}")
    chosen = parser.parse_args()
    results = read(sys.stdin)
    missing = sum(cell not in results for cell in everything())
    if missing:
        print(f"{missing} cells were not run: say --thorough", file=sys.stderr)
    if chosen.write and not missing:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
    else:
        print(tables(results), end="")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
