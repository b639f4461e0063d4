"""Sysctls and the record of their former values, on a folder that stands for /proc/sys."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from revip.adapters.host.record import Record
from revip.adapters.host.sysctls import Sysctls
from revip.errors import KernelError
from revip.model.host import Sysctl

FILTER = Sysctl("net.ipv4.conf.eth0/7.rp_filter", "2")


class Tree:
    def __init__(self, folder: Path) -> None:
        self.root = folder / "sys"
        self.file = self.root / "net/ipv4/conf/eth0.7/rp_filter"
        self.file.parent.mkdir(parents=True)
        self.file.write_text("1\n")
        self.record = folder / "state" / "host.json"

    def opened(self) -> Sysctls:
        record = Record(self.record)
        record.load()
        self.kept = record
        return Sysctls(record, self.root)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_a_value_is_given_and_put_back(tree: Tree) -> None:
    sysctls = tree.opened()
    assert not sysctls.in_force(FILTER)
    sysctls.give(FILTER)
    assert sysctls.in_force(FILTER)
    assert sysctls.is_ours(FILTER)
    sysctls.restore(FILTER)
    assert tree.file.read_text() == "1\n"
    assert not sysctls.is_ours(FILTER)


def test_a_value_that_is_right_already_is_never_ours(tree: Tree) -> None:
    tree.file.write_text("2\n")
    sysctls = tree.opened()
    sysctls.give(FILTER)
    assert not sysctls.is_ours(FILTER)


def test_the_oldest_former_value_survives_a_crash_and_a_reset(tree: Tree) -> None:
    tree.opened().give(FILTER)
    tree.file.write_text("0\n")
    again = tree.opened()
    again.give(FILTER)
    again.restore(FILTER)
    assert tree.file.read_text() == "1\n"


def test_spaces_between_numbers_do_not_count(tree: Tree) -> None:
    tree.file.write_text("4096\t131072  6291456\n")
    assert tree.opened().in_force(Sysctl(FILTER.name, "4096 131072 6291456"))


def test_a_value_may_be_changed_only_where_it_is_the_expected_one(tree: Tree) -> None:
    cautious = Sysctl(FILTER.name, "2", only_if="1")
    assert not tree.opened().in_force(cautious)
    tree.file.write_text("0\n")
    sysctls = tree.opened()
    assert sysctls.in_force(cautious)
    sysctls.give(cautious)
    assert tree.file.read_text() == "0\n"


def test_an_optional_sysctl_may_be_missing_and_another_names_its_module(tree: Tree) -> None:
    sysctls = tree.opened()
    assert sysctls.in_force(Sysctl("net.ipv4.vs.conn_reuse_mode", "1", optional=True))
    missing = Sysctl("net.ipv4.vs.conntrack", "1")
    assert not sysctls.in_force(missing)
    with pytest.raises(KernelError, match="modprobe ip_vs") as caught:
        sysctls.give(missing)
    assert caught.value.errno == errno.ENOENT


def test_a_missing_interface_is_named_as_the_operator_wrote_it(tree: Tree) -> None:
    (tree.root / "net/ipv6").mkdir()
    for family in ("ipv4", "ipv6"):
        with pytest.raises(KernelError, match=r"no interface eth9\.1 ") as caught:
            tree.opened().give(Sysctl(f"net.{family}.conf.eth9/1.rp_filter", "2"))
        assert caught.value.errno == errno.ENODEV


def test_ipv6_that_is_switched_off_is_told(tree: Tree) -> None:
    with pytest.raises(KernelError, match="IPv6 disabled"):
        tree.opened().give(Sysctl("net.ipv6.conf.all.forwarding", "1"))


def test_a_disk_that_cannot_be_written_is_reported_and_keeps_nothing_from_being_mended(
    tree: Tree,
) -> None:
    tree.record.parent.write_text("a file where the folder should be")
    sysctls = tree.opened()
    sysctls.give(FILTER)
    assert tree.file.read_text() == "2\n"
    assert tree.kept.trouble is not None
    sysctls.restore(FILTER)
    assert tree.file.read_text() == "1\n"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot": "x"}', '"\\ud800"'])
def test_a_damaged_record_is_an_empty_one(tree: Tree, text: str) -> None:
    tree.record.parent.mkdir()
    tree.record.write_text(text)
    tree.opened().give(FILTER)
    assert json.loads(tree.record.read_text())["sysctls"][FILTER.name] == {
        "former": "1",
        "given": "2",
    }


def test_a_record_of_another_boot_is_void(tree: Tree) -> None:
    tree.opened().give(FILTER)
    document = json.loads(tree.record.read_text())
    tree.record.write_text(json.dumps(document | {"boot": "another"}))
    assert not tree.opened().is_ours(FILTER)
