"""The command line as an operator uses it: in this process, and as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from revip.cli.main import main

GOOD = """\
node: n1
virtual_servers:
  - name: api
    address: 10.0.1.10
    port: 6443
    interface: eth0
    owner: n1
    backends:
      - {name: n1, address: 10.0.1.16}
      - {name: n2, address: 10.0.1.19}
      - {name: n3, address: 10.0.1.20}
    probe: {kind: tcp}
"""


@dataclass(frozen=True)
class Said:
    """What came of a command."""

    code: int
    out: str
    err: str

    @property
    def problems(self) -> list[str]:
        """The lines of an error message."""
        return self.err.splitlines()


Revip = Callable[..., Said]


@pytest.fixture
def revip(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Revip:
    """Run `revip ARGUMENTS` in this process."""
    for name in [name for name in os.environ if name.startswith("REVIP_")]:
        monkeypatch.delenv(name)

    def run(*arguments: str | Path) -> Said:
        capsys.readouterr()
        try:
            code = main([str(each) for each in arguments])
        except SystemExit as stopped:  # argparse
            code = int(str(stopped.code))
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return run


@pytest.fixture
def processed() -> Revip:
    """Run `python -m revip ARGUMENTS` as a process, `before` it a program that starts it."""

    def run(*arguments: str | Path, before: Sequence[str] = ()) -> Said:
        command = [*before, sys.executable, "-m", "revip", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        return Said(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def hall() -> Iterator[Path]:
    """A folder with a short name that everybody may look into, as into /etc."""
    with tempfile.TemporaryDirectory(prefix="revip-") as name:
        hall = Path(name)
        hall.chmod(0o755)
        yield hall


@pytest.fixture
def place(hall: Path) -> Path:
    """A folder for an agent's socket and state, which must stay as it is."""
    folder = hall / "run"
    folder.mkdir()
    return folder


@pytest.fixture
def config(hall: Path, place: Path) -> Callable[[str | bytes], Path]:
    """Write a configuration whose agent lives in `place`."""

    def write(content: str | bytes = GOOD) -> Path:
        path = hall / "revip.yaml"
        if isinstance(content, str):
            agent = f"{{socket: {place}/revip.sock, state_file: {place}/state.json}}"
            content = f"{content}agent: {agent}\n".encode()
        path.write_bytes(content)
        return path

    return write
