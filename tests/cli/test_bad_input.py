"""Bad input gets a clear answer: exit code 2, one line a problem, and nothing was done."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from revip.api.control import claim
from tests.cli.conftest import GOOD, Revip

Write = Callable[..., Path]


def replaced(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


PORT, VIP = "port: 6443", "address: 10.0.1.10\n"
HEALTH = "    health: {{{}}}\n".format

MISTAKES = {
    # what is written: (line, key and value as told, and the mend)
    "unknown key": (GOOD + "    sheduler: mh\n", 13, "virtual_servers[0].sheduler: ", "scheduler?"),
    "wrong type": (replaced(PORT, "port: six"), 5, ".port = six: ", "must be a whole number"),
    "VIP is a name": (replaced(VIP, "address: api.example\n"), 4, " = api.example: ", "not looked"),
    "VIP is a backend": (replaced(VIP, "address: 10.0.1.19\n"), 10, " = 10.0.1.19: ", "virtual IP"),
    "port 0": (replaced(PORT, "port: 0"), 5, ".port = 0: ", "must be from 1 to 65535"),
    "port 70000": (replaced(PORT, "port: 70000"), 5, ".port = 70000: ", "must be from 1 to 65535"),
    "backend twice": (replaced("1.20", "1.19"), 11, " = 10.0.1.19: ", "listed twice, first at"),
    "mixed families": (replaced("10.0.1.20", "'fd00::20'"), 11, " = fd00::20: ", "use one family"),
    "scheduler": (GOOD + "    scheduler: wllc\n", 13, ".scheduler = wllc: ", "did you mean wlc?"),
    "timings": (
        GOOD + HEALTH("interval: 50ms"),
        13,
        ".health.interval = 50ms: ",
        "fast_interval (100ms) must not be longer",
    ),
    "timeout below connect": (
        GOOD + HEALTH("timeout: 100ms"),
        13,
        ".health.timeout = 100ms: ",
        "connect_timeout (300ms) must not be longer",
    ),
    "bare number": (GOOD + HEALTH("interval: 400"), 13, ".interval = 400: ", "write 400ms"),
}


@pytest.mark.parametrize("command", ["run", "check", "cleanup"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_with_file_key_value_and_mend(
    revip: Revip, config: Write, place: Path, mistake: str, command: str
) -> None:
    text, line, subject, mend = MISTAKES[mistake]
    path = config(text)
    said = revip(command, "--config", path)
    assert said.code == 2
    (problem,) = said.problems
    assert problem.startswith(f"revip: {path}:{line}: ")
    assert subject in problem
    assert mend in problem.partition(subject)[2]
    assert said.out == ""
    assert list(place.iterdir()) == []


def test_every_problem_has_its_line(revip: Revip, config: Write) -> None:
    path = config(replaced(PORT, "port: 0") + "    scheduler: wllc\n    colour: red\n")
    said = revip("run", "--config", path)
    assert said.code == 2
    assert len(said.problems) == 3
    assert all(line.startswith(f"revip: {path}:") for line in said.problems)


def test_check_tells_the_same_problems_to_programs(revip: Revip, config: Write) -> None:
    path = config(replaced(PORT, "port: 70000"))
    said = revip("check", "--json", "--config", path)
    assert (said.code, said.err) == (2, "")
    document = json.loads(said.out)
    assert document["ok"] is False
    (problem,) = document["problems"]
    assert problem == {
        "origin": f"{path}:5",
        "key": "virtual_servers[0].port",
        "value": "70000",
        "mend": "must be from 1 to 65535",
    }


FILES: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "does not exist"),
    "empty": (b"", "is empty"),
    "not YAML": (b"a: [1\nb: 2\n", "is not valid YAML"),
    "10 MiB": (b"#" * (10 << 20), "is larger than 1 MiB"),
    "no text": (b"\x7fELF\0\0", "NUL byte"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_configuration_is_refused(
    revip: Revip, tmp_path: Path, case: str
) -> None:
    content, expected = FILES[case]
    path = tmp_path / "revip.yaml"
    if content is not None:
        path.write_bytes(content)
    said = revip("run", "--config", path)
    assert said.code == 2
    (problem,) = said.problems
    assert problem.startswith(f"revip: {path}")
    assert expected in problem


def test_a_directory_is_no_configuration(revip: Revip, tmp_path: Path) -> None:
    said = revip("run", "--config", tmp_path)
    assert (said.code, said.err) == (2, f"revip: {tmp_path}: is a directory: name a file\n")


CREDENTIALS: dict[str, tuple[str, bytes | None, str]] = {
    "CA missing": ("ca", None, "does not exist"),
    "CA not PEM": ("ca", b"certainly not\n", "PEM"),
    "CA empty": ("ca", b"", "PEM"),
    "token empty": ("token_file", b"", "empty"),
    "token missing": ("token_file", None, "does not exist"),
}


@pytest.mark.parametrize("case", CREDENTIALS)
def test_a_credential_that_cannot_be_used_is_refused(
    revip: Revip, config: Write, hall: Path, case: str
) -> None:
    key, content, expected = CREDENTIALS[case]
    file = hall / "credential"
    if content is not None:
        file.write_bytes(content)
    path = config(replaced("probe: {kind: tcp}", f"probe: {{{key}: {file}}}"))
    said = revip("run", "--config", path)
    assert said.code == 2
    (problem,) = said.problems
    assert problem.startswith(f"revip: {path}:12: virtual_servers[0].probe.{key} = {file}: ")
    assert expected in problem


# What only a process of its own can show -------------------------------------------------------

AS_ROOT = os.geteuid() == 0
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
UNPRIVILEGED_ROOT = (
    "setpriv",
    "--bounding-set=-net_admin",
    "--inh-caps=-net_admin",
    "--ambient-caps=-net_admin",
)
OPEN = all(parent.stat().st_mode & 0o005 == 0o005 for parent in Path(__file__).resolve().parents)
"""Whether nobody can import revip from this checkout."""
needs_setpriv = pytest.mark.skipif(
    not AS_ROOT or shutil.which("setpriv") is None or not OPEN,
    reason="needs root, setpriv(1) and a checkout that everybody can read",
)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        pytest.param(
            NOBODY if AS_ROOT else (),
            "not root and without CAP_NET_ADMIN",
            id="nobody",
            marks=needs_setpriv if AS_ROOT else (),
        ),
        pytest.param(
            UNPRIVILEGED_ROOT,
            "root without CAP_NET_ADMIN",
            id="root without the capability",
            marks=needs_setpriv,
        ),
    ],
)
def test_missing_rights_are_one_line_with_the_mend(
    processed: Revip, config: Write, place: Path, before: Sequence[str], expected: str
) -> None:
    place.chmod(0o777)
    path = config()
    said = processed("run", "--config", path, before=before)
    assert said.code == 2, said
    (problem,) = said.problems
    assert problem.startswith(f"revip: rights: {expected}; run as root, or give Ambient")
    assert list(place.iterdir()) == []


@needs_setpriv
def test_an_unreadable_authority_is_named(processed: Revip, config: Write, hall: Path) -> None:
    authority = hall / "ca.crt"
    authority.write_text("secret")
    path = config(replaced("probe: {kind: tcp}", f"probe: {{ca: {authority}}}"))
    authority.chmod(0o600)
    said = processed("check", "--config", path, before=NOBODY)
    assert said.code == 2, said
    (problem,) = said.problems
    assert f"probe.ca = {authority}: cannot be read: permission denied" in problem


needs_rights = pytest.mark.skipif(not AS_ROOT, reason="needs CAP_NET_ADMIN to get that far")


@needs_rights
def test_a_second_agent_is_refused_and_the_first_named(
    processed: Revip, config: Write, place: Path
) -> None:
    path = config()
    with claim(place / "revip.sock"):
        said = processed("run", "--config", path)
    assert said.code == 2, said
    (problem,) = said.problems
    assert f"another revip agent is running here (pid {os.getpid()}): stop it first" in problem


@needs_rights
def test_a_file_in_the_sockets_place_is_kept(processed: Revip, config: Write, place: Path) -> None:
    taken = place / "revip.sock"
    taken.write_text("precious")
    said = processed("run", "--config", config())
    assert said.code == 2, said
    (problem,) = said.problems
    assert f"{taken}: exists and is not a socket: remove it, or set agent.socket" in problem
    assert taken.read_text() == "precious"


@needs_rights
def test_a_directory_that_cannot_be_made_is_named(
    processed: Revip, config: Write, place: Path
) -> None:
    path = config()
    place.rmdir()
    place.write_text("in the way")
    said = processed("run", "--config", path)
    assert said.code == 2, said
    (problem,) = said.problems
    assert f"directory: {place} cannot be written; make it writable" in problem


# The command line itself -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("rn",),
        ("run", "--confg", "x"),
        ("drain",),
        ("events", "--last", "many"),
        ("status", "x"),
    ],
)
def test_a_wrong_command_line_is_explained(revip: Revip, arguments: tuple[str, ...]) -> None:
    said = revip(*arguments)
    assert said.code == 2
    assert "usage: revip" in said.err


def test_environment_mistakes_are_named_by_variable(
    revip: Revip, config: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVIP_PROT", "6443")
    said = revip("run", "--config", config())
    assert said.code == 2
    assert said.problems == [
        "revip: REVIP_PROT: is no variable that revip knows: did you mean REVIP_PORT?"
    ]
