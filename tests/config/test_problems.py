"""Bad input gets a clear answer: where, what, and how to mend it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from revip.config import load
from revip.errors import ConfigError
from tests.config.conftest import GOOD, Asker, Loader, within

ONE = "      - {name: n1, address: 10.0.1.16}\n"
BACKENDS = GOOD[GOOD.index("    backends:") :]


def elected(election: str) -> str:
    return GOOD.replace("    owner: n1\n", f"    election: {election}\n")


def with_backends(*items: str) -> str:
    return GOOD.replace(BACKENDS, "    backends:\n" + "".join(f"      - {{{i}}}\n" for i in items))


WRONG_VALUES = {
    "unknown key": (within(GOOD, sheduler="mh"), "sheduler: is no key.*did you mean scheduler"),
    "unknown key far from any": (GOOD + "zzzzz: 1\n", "zzzzz: is no key.*keys here are node,"),
    "unknown key below": (within(GOOD, health="{raise: 2}"), r"health\.raise: .*did you mean rise"),
    "wrong type of number": (within(GOOD, port="six"), "port = six: must be a whole number"),
    "number in quotes": (within(GOOD, port='"6443"'), "without quotes"),
    "octal number": (within(GOOD, port="010"), "port = 010: .*plain decimal"),
    "list for a number": (within(GOOD, port="[1]"), "port: must be a whole number.*list of 1"),
    "number for a name": (GOOD.replace("name: api", "name: 12"), 'name = 12: .*write "12"'),
    "word for a list": (within(GOOD, scheduler_flags="mh-port"), r"must be a list, \[mh-port\]"),
    "list for a block": (within(GOOD, probe="[a]"), r"probe: must hold keys \(kind,"),
    "word for a backend": (with_backends("address: 10.0.1.16") + "      - n2\n", "must hold keys"),
    "text for a boolean": (within(GOOD, probe="{verify: no}"), "verify = no: must be true or"),
    "nothing": (GOOD.replace("name: api", "name: "), "name: is empty"),
    "VIP is a name": (within(GOOD, address="api.example"), "names are not looked up"),
    "VIP with a prefix": (within(GOOD, address="10.0.1.10/32"), "write 10.0.1.10$"),
    "VIP is half an address": (within(GOOD, address="10.0.1"), "four numbers"),
    "VIP with a zone": (within(GOOD, address="fe80::1%eth0"), "without a zone"),
    "VIP is a backend": (within(GOOD, address="10.0.1.16"), "address = 10.0.1.16: is the virtual"),
    "VIP is loopback": (within(GOOD, address="127.0.0.1"), "loopback"),
    "VIP is multicast": (within(GOOD, address="224.0.0.18"), "multicast"),
    "VIP is unspecified": (within(GOOD, address="0.0.0.0"), "unspecified"),
    "VIP is broadcast": (within(GOOD, address="255.255.255.255"), "not a unicast"),
    "port zero": (within(GOOD, port="0"), r"port = 0: must be from 1 to 65535"),
    "port too large": (within(GOOD, port="70000"), "port = 70000: must be from 1 to 65535"),
    "backend port zero": (with_backends("address: 10.0.1.16, port: 0"), r"backends\[0\]\.port = 0"),
    "no interface": (GOOD.replace("    interface: eth0\n", ""), "REVIP_INTERFACE"),
    "interface too long": (within(GOOD, interface="a" * 16), "at most 15 bytes"),
    "interface is ours": (within(GOOD, interface="dummy-revip"), "faces the clients"),
    "name with a blank": (GOOD.replace("name: api", "name: a b"), "letters, digits"),
    "backend twice by name": (
        with_backends("name: a, address: 10.0.1.16", "name: a, address: 10.0.1.17"),
        r"a is listed twice, first at .*revip.yaml:9",
    ),
    "backend twice by endpoint": (
        with_backends("name: a, address: 10.0.1.16", "name: b, address: 10.0.1.16"),
        "10.0.1.16:6443 is listed twice",
    ),
    "mixed families": (with_backends("address: fd00::16"), "is IPv6, but the virtual IP"),
    "loopback backend": (with_backends("address: 127.0.0.1"), "loopback"),
    "weight zero": (with_backends("address: 10.0.1.16, weight: 0"), "weight = 0: must be from 1"),
    "weight too large": (with_backends("address: 10.0.1.16, weight: 65536"), "to 65535"),
    "direct to another port": (
        with_backends("address: 10.0.1.16, port: 8443"),
        "port = 8443: differs.*forwarding: masquerade",
    ),
    "no backends": (GOOD.replace(BACKENDS, ""), "backends: lists no backend.*backends_file"),
    "empty backends": (GOOD.replace(BACKENDS, "    backends: []\n"), "lists no backend"),
    "scheduler misspelt": (within(GOOD, scheduler="wllc"), "did you mean wlc"),
    "scheduler in capitals": (within(GOOD, scheduler="MH"), "did you mean mh"),
    "flags of another scheduler": (
        within(GOOD, scheduler="rr", scheduler_flags="[mh-port]"),
        "mh-port does not belong to scheduler rr; it has none",
    ),
    "flags of sh with mh": (within(GOOD, scheduler_flags="[sh-port]"), "use mh-fallback or mh-p"),
    "flag misspelt": (within(GOOD, scheduler_flags="[mh-prt]"), "did you mean mh-port"),
    "flag twice": (within(GOOD, scheduler_flags="[mh-port, mh-port]"), "twice"),
    "bare duration": (within(GOOD, health="{interval: 400}"), "needs a unit: write 400ms, 400s"),
    "fraction of a duration": (within(GOOD, health="{interval: 0.5s}"), "is not a duration"),
    "interval of nothing": (within(GOOD, health="{interval: 0ms}"), "must be from 20ms to 5m"),
    "fast slower than slow": (
        within(GOOD, health="{interval: 50ms}"),
        r"interval = 50ms: fast_interval \(100ms\) must not be longer than interval \(50ms\)",
    ),
    "connect longer than all": (
        within(GOOD, health="{timeout: 200ms}"),
        r"connect_timeout \(300ms\) must not be longer than timeout \(200ms\)",
    ),
    "confirmation slower than fast": (
        within(GOOD, health="{confirm_interval: 1s}"),
        "confirm_interval .* must not be longer than fast_interval",
    ),
    "hold above its bound": (within(GOOD, health="{damping_hold: 2m}"), "damping_hold_max"),
    "rise of zero": (within(GOOD, health="{rise: 0}"), "rise = 0: must be from 1"),
    "fall of zero": (within(GOOD, health="{fall: 0}"), "fall = 0: must be from 1"),
    "profile misspelt": (within(GOOD, health="{profile: fats}"), "did you mean fast"),
    "panic for ever": (within(GOOD, panic_threshold="4"), "more than the 3 backends"),
    "path without a slash": (within(GOOD, probe="{path: readyz}"), "begin with /"),
    "relative file": (within(GOOD, probe="{ca: ca.crt}"), "absolute path"),
    "status out of range": (within(GOOD, probe="{expected_status: [20]}"), "from 100 to 599"),
    "certificate without key": (within(GOOD, probe="{client_certificate: /x}"), "needs client_key"),
    "key without certificate": (within(GOOD, probe="{client_key: /x}"), "needs client_certif"),
    "token in clear": (within(GOOD, probe="{kind: http, token_file: /x}"), "in clear"),
    "no virtual servers": ("node: n1\n", "virtual_servers: is missing"),
    "empty virtual servers": ("virtual_servers: []\n", "is an empty list"),
    "virtual servers no list": ("virtual_servers: {a: 1}\n", "must be a list of blocks"),
    "node address is the VIP": (GOOD + "node_address: 10.0.1.10\n", "is the virtual IP of api"),
    "node address of another family": (GOOD + "node_address: fd00::1\n", "is IPv6, but api is"),
    "socket path too long": (GOOD + f"agent: {{socket: /{'s' * 120}}}\n", "107 at most"),
    "neither owner nor election": (
        GOOD.replace("    owner: n1\n", ""),
        "owner: is missing.*REVIP_OWNER.*election.kind: vrrp",
    ),
    "owner beside an election": (
        within(GOOD, election="{kind: vrrp, vrid: 51}"),
        "owner = n1: the nodes elect the director",
    ),
    "election misspelt": (elected("{kind: vrpp, vrid: 51}"), "did you mean vrrp"),
    "election without a group": (elected("{kind: vrrp}"), "vrid: is missing"),
    "vrid out of range": (elected("{kind: vrrp, vrid: 256}"), "vrid = 256: must be from 1 to 255"),
    "priority of the owner": (
        elected("{kind: vrrp, vrid: 51, priority: 255}"),
        "priority = 255: must be from 1 to 254",
    ),
    "interval finer than the wire": (
        elected("{kind: vrrp, vrid: 51, advert_interval: 105ms}"),
        "advert_interval = 105ms: must be a multiple of 10ms",
    ),
    "interval too long": (
        elected("{kind: vrrp, vrid: 51, advert_interval: 41s, address_lifetime: 2m}"),
        "from 100ms to 40s",
    ),
    "lifetime finer than the kernel's": (
        elected("{kind: vrrp, vrid: 51, address_lifetime: 2500ms}"),
        "address_lifetime = 2500ms: must be a multiple of 1s",
    ),
    "lifetime shorter than a late advert": (
        elected("{kind: vrrp, vrid: 51, advert_interval: 2s}"),
        r"address_lifetime \(3s\) must be at least 4s",
    ),
    "peer of another family": (
        elected("{kind: vrrp, vrid: 51, peers: ['fd00::19']}"),
        "fd00::19 is not IPv4",
    ),
    "peer is the VIP": (
        elected("{kind: vrrp, vrid: 51, peers: [10.0.1.10]}"),
        "10.0.1.10 is the virtual IP: write the other nodes'",
    ),
    "key of an election without one": (
        within(GOOD, election="{vrid: 51}"),
        "vrid = 51: is of an election: write kind: vrrp",
    ),
    "election without the host": (
        elected("{kind: vrrp, vrid: 51}") + "agent: {manage_host: false}\n",
        "manage_host = false: must be true: the election of api",
    ),
    "on_exit unknown": (GOOD + "agent: {on_exit: stay}\n", "must be one of leave, withdraw"),
}


@pytest.mark.parametrize(("text", "expected"), WRONG_VALUES.values(), ids=WRONG_VALUES.keys())
def test_a_wrong_value_is_named_with_its_line_and_mend(
    problems_of: Asker, text: str, expected: str
) -> None:
    lines = [str(problem) for problem in problems_of(text)]
    assert any(re.search(expected, line) for line in lines), lines
    for line in lines:
        assert re.match(r".*/revip\.yaml(:\d+)?: \S", line)
        assert "\n" not in line


def test_one_mistake_is_one_problem(problems_of: Asker) -> None:
    more_than_one = {
        name: problems
        for name, (text, _) in WRONG_VALUES.items()
        if len(problems := problems_of(text)) != 1
    }
    # A missing file beside a bad pair, and a VIP of the other kind, are mistakes of their own.
    allowed = {"certificate without key", "key without certificate", "token in clear"}
    assert set(more_than_one) <= allowed, more_than_one


def test_all_problems_are_told_at_once(problems_of: Asker) -> None:
    text = within(GOOD, port="0", scheduler="mhh", health="{rise: 0, timeuot: 1s}") + "nodes: n1\n"
    keys = {problem.key.rpartition(".")[2] for problem in problems_of(text)}
    assert keys == {"port", "scheduler", "rise", "timeuot", "nodes"}


def test_a_problem_names_the_line_of_its_key(problems_of: Asker) -> None:
    (problem,) = problems_of(GOOD.replace("port: 6443", "port: 70000"))
    assert problem.origin.endswith("revip.yaml:5")
    assert (problem.key, problem.value) == ("virtual_servers[0].port", "70000")


SECOND = """\
  - name: other
    address: 10.0.1.11
    interface: eth0
    owner: n1
    backends: [{address: 10.0.1.16}, {address: 10.0.1.19}, {address: 10.0.1.20}]
"""


def test_two_elected_virtual_servers_have_two_groups_and_two_addresses(
    problems_of: Asker, spec_of: Loader
) -> None:
    both = elected("{kind: vrrp, vrid: 51}") + SECOND.replace(
        "owner: n1", "election: {kind: vrrp, vrid: 51}"
    )
    (problem,) = problems_of(both)
    assert "vrid = 51: is that of virtual server api, at" in str(problem)
    assert "on the same interface" in str(problem)
    assert len(spec_of(both.replace("interface: eth0", "interface: eth1", 1)).virtual_servers) == 2
    shared = both.replace("10.0.1.11", "10.0.1.10\n    port: 80").replace("vrid: 51", "vrid: 52", 1)
    (problem,) = problems_of(shared)
    assert "an elected address has one virtual server" in str(problem)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("10.0.1.11", "10.0.1.10", "10.0.1.10:6443 is already that of virtual server api"),
        ("name: other", "name: api", "name = api: is already that of"),
        ("10.0.1.11\n", "10.0.1.10\n    port: 80\n", "port"),
        ("10.0.1.20}", "10.0.1.10}", "is also a backend of virtual server other"),
    ],
)
def test_two_virtual_servers_do_not_collide(
    problems_of: Asker, spec_of: Loader, before: str, after: str, expected: str
) -> None:
    if expected == "port":
        assert len(spec_of(GOOD + SECOND.replace(before, after)).virtual_servers) == 2
        return
    assert any(expected in str(each) for each in problems_of(GOOD + SECOND.replace(before, after)))


def test_an_address_has_one_owner_and_one_interface(problems_of: Asker) -> None:
    other = SECOND.replace("10.0.1.11", "10.0.1.10\n    port: 80").replace("n1", "n2")
    (problem,) = problems_of(GOOD + other)
    assert "must be n1, as in virtual server api" in problem.mend


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"# only a comment\n", "is empty"),
        (b"just words\n", "must hold keys such as virtual_servers"),
        (b"a: [1\nb: 2\n", r"revip.yaml:2: is not valid YAML: "),
        (b"a:\n\tb: 1\n", r"revip.yaml:2: is not valid YAML: "),
        (b"a: 1\n---\nb: 2\n", "is not valid YAML: .*another document"),
        (b"node: n1\nnode: n2\n", r"revip.yaml:2: node: is written twice, first at .*:1"),
        (b"node: !!python/object:os.system n1\n", r"yaml:1: remove the tag"),
        (b"node: !mine n1\n", "remove the tag !mine"),
        (b"a: &a [*a]\n", "holds itself"),
        (b"[a]: 1\n", "a key must be a word"),
        (b"<<: 1\n", "merge needs an alias"),
        (b"a: 1\nb: \x00\n", "revip.yaml:2: holds a NUL byte"),
        (b"a: 1\nb: \x07\n", "revip.yaml:2: holds the control character"),
        (b"a: 1\nb: \xff\xfe\n", "revip.yaml:2: is not UTF-8"),
        (b"a: " + b"[" * 1000, "is nested too deeply"),
        (b"#" * (10 << 20), "is larger than 1 MiB"),
    ],
)
def test_a_file_that_is_no_configuration_says_so(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    path = tmp_path / "revip.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path, {}, "host")
    assert re.search(expected, str(caught.value)), str(caught.value)[:500]


def test_aliases_of_aliases_do_not_multiply(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    path = tmp_path / "revip.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="is no key that revip knows"):
        load(path, {}, "host")


def test_a_path_that_is_no_file_says_so_and_never_waits(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, expected in (
        (tmp_path, "is a directory: name a file"),
        (tmp_path / "none.yaml", "does not exist"),
        (pipe, "is not a regular file"),
        (loop, "cannot be read: its symbolic links go in circles"),
        (pipe / "x", "does not exist: part of its path is not a directory"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(path, {}, "host")
        assert str(caught.value).startswith(f"{path}: {expected}")
