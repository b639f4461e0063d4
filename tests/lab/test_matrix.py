"""The client matrix: its registry, its subset, and the tables in the documents."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from itertools import product

from lab.matrix import (
    BEGIN,
    CLIENTS,
    END,
    FORBIDDEN,
    METHODS,
    PAGE,
    PLAIN,
    SURROUNDINGS,
    Cell,
    everything,
    read,
    subset,
    tables,
    written,
)

RESULTS = dict.fromkeys(everything(), "6 of 6")


def rows(text: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]


def document() -> str:
    text = PAGE.read_text(encoding="utf-8")
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)]


def test_the_documented_rows_and_columns_are_those_of_the_registry() -> None:
    blank = re.compile(r"\d+ of \d+")
    assert [row[:1] for row in rows(document())] == [row[:1] for row in rows(tables(RESULTS))]
    assert blank.sub("#", document()) == blank.sub("#", tables(RESULTS))


def test_every_documented_cell_that_can_work_does() -> None:
    forbidden = {surroundings for _, surroundings in FORBIDDEN}
    for row in rows(document()):
        for good, tried in re.findall(r"(\d+) of (\d+)", " ".join(row)):
            assert good == tried or row[0] in forbidden, row


def test_every_client_meets_every_method_and_all_surroundings_by_default() -> None:
    cells = set(subset())
    assert cells < set(everything())
    seen = {(cell.client, cell.forwarding, cell.family) for cell in cells}
    assert seen == {(c.words, *method) for c, method in product(CLIENTS, METHODS)}
    met = {(cell.client, cell.surroundings) for cell in cells}
    possible = {name for name in SURROUNDINGS if ("direct", name) not in FORBIDDEN}
    assert met >= set(product((client.words for client in CLIENTS), possible))


def test_the_events_of_a_run_become_the_tables() -> None:
    cell = Cell("direct", 4, PLAIN, "host on the segment", "up")
    line = json.dumps({"event": "cell", "at_ms": 1, **asdict(cell), "good": 5, "tried": 6})
    assert read(["not json", "[]", line]) == {cell: "5 of 6"}
    page = f"above\n{BEGIN}old\n{END}\nbelow\n"
    assert "| host on the segment | 5 of 6 / - |" in written(page, read([line]))
    assert written(page, {}).endswith(f"{END}\nbelow\n")
