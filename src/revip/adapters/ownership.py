"""The state file: what the agent's next start must know of this one.

It lives under /run, so that it is lost at reboot together with the table it describes.
"""

from __future__ import annotations

import json
import os
from ipaddress import ip_address
from pathlib import Path

from revip.errors import TransientError
from revip.model.health import BackendName
from revip.model.instants import Instant
from revip.model.ipvs import Port, Protocol, ServiceKey
from revip.model.record import Record


class StateFile:
    """`Ownership` in a small JSON file, replaced by rename(2)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Record:
        """Return the record; a missing or damaged file is an empty one."""
        try:
            document = json.loads(self._path.read_text())
            keys = frozenset(_key(entry) for entry in document["virtual_servers"])
            drained = {
                str(server): {BackendName(name): Instant(int(at)) for name, at in names.items()}
                for server, names in document.get("drained", {}).items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return Record()
        return Record(keys, drained)

    def write(self, record: Record) -> None:
        """Replace the record; the rename is atomic, so a reader never sees half of it."""
        entries = [
            {"address": str(key.address), "port": key.port, "protocol": key.protocol.name}
            for key in sorted(record.keys, key=str)
        ]
        document = {"version": 1, "virtual_servers": entries, "drained": record.drained}
        draft = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(document, indent=1))
            os.replace(draft, self._path)  # noqa: PTH105 (rename that overwrites, by its name)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise TransientError(f"cannot write {self._path}: {reason}") from error


def _key(entry: dict[str, str | int]) -> ServiceKey:
    port = int(entry["port"])
    if not 0 <= port <= 65535:
        raise ValueError(f"{port} is no port")
    return ServiceKey(
        ip_address(str(entry["address"])),
        Port(port),
        Protocol[str(entry["protocol"])],
    )
