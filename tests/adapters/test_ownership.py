"""The state file: written whole, read with suspicion."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from revip.adapters.ownership import StateFile
from revip.errors import TransientError
from revip.model.health import BackendName
from revip.model.instants import Instant
from revip.model.ipvs import Port, ServiceKey
from revip.model.record import Record

RECORD = Record(
    frozenset({ServiceKey(ip_address(a), Port(6443)) for a in ("10.0.1.10", "fd00:1::10")}),
    {"api": {BackendName("n2"): Instant(12_345)}},
)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    StateFile(tmp_path / "run" / "state.json").write(RECORD)
    assert StateFile(tmp_path / "run" / "state.json").read() == RECORD


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "[]",
        "{",
        '{"virtual_servers": 7}',
        '{"virtual_servers": [{"address": "10.0.1.10", "port": 70000, "protocol": "TCP"}]}',
        '{"virtual_servers": [], "drained": {"api": ["n2"]}}',
        "[" * 100_000,
    ],
)
def test_a_damaged_file_is_an_empty_record(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(damage)
    assert StateFile(path).read() == Record()


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TransientError, match=r"cannot write .*state\.json: "):
        StateFile(tmp_path / "file" / "state.json").write(RECORD)
