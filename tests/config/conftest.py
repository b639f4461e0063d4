from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from revip.config import load
from revip.errors import ConfigError, Problem
from revip.model.spec import Spec

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
"""
"""The least that a file for three nodes says; tests change one thing in it."""

Loader = Callable[..., Spec]
Asker = Callable[..., tuple[Problem, ...]]


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "revip.yaml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def spec_of(config: Callable[[str], Path]) -> Loader:
    def read(text: str, environ: Mapping[str, str] | None = None) -> Spec:
        return load(config(text), environ or {}, "host")

    return read


@pytest.fixture
def problems_of(spec_of: Loader) -> Asker:
    def ask(text: str, environ: Mapping[str, str] | None = None) -> tuple[Problem, ...]:
        with pytest.raises(ConfigError) as caught:
            spec_of(text, environ)
        return caught.value.problems

    return ask


def within(text: str, **changes: str) -> str:
    """Return `text` with lines added to its virtual server (`key="value"`), replacing theirs."""
    for key, value in changes.items():
        kept = [line for line in text.splitlines() if not line.startswith(f"    {key}:")]
        where = kept.index("    owner: n1") if "    owner: n1" in kept else len(kept) - 4
        kept.insert(where, f"    {key}: {value}")
        text = "\n".join(kept) + "\n"
    return text
