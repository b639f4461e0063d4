"""Sysctls by their files: written only on difference, put back to what they were (sysctl(8))."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from revip.adapters.host.record import Changed, Record
from revip.adapters.host.refusals import refusal
from revip.errors import KernelError
from revip.model.host import Sysctl

_OF_A_LINK = re.compile(r"net\.ipv[46]\.conf\.([^.]+)\.\w+")
_SWAPPED = str.maketrans("./", "/.")
"""Names have dots for levels and slashes for dots within a level (sysctl.d(5))."""


class Sysctls:
    """The sysctls of this network namespace, and our record of what we changed."""

    def __init__(self, record: Record, root: Path = Path("/proc/sys")) -> None:
        self._record = record
        self._root = root

    def in_force(self, fact: Sysctl) -> bool:
        """Tell whether nothing need be done for `fact`.  Raises `KernelError`."""
        try:
            present = self._read(fact.name)
        except FileNotFoundError:
            return fact.optional
        except OSError as error:
            raise refusal(error.errno or errno.EIO, f"read sysctl {fact.name}") from error
        if fact.only_if is not None and present != fact.only_if:
            return True
        return present == _normal(fact.value)

    def is_ours(self, fact: Sysctl) -> bool:
        """Tell whether we changed it and have not put it back."""
        return fact.name in self._record.sysctls

    def give(self, fact: Sysctl) -> None:
        """Write the value, having recorded the one before.  Raises `KernelError`."""
        operation = f"set sysctl {fact.name} = {fact.value}"
        try:
            if self.in_force(fact):
                return
            present = self._read(fact.name)
            earlier = self._record.sysctls.get(fact.name)
            change = Changed(earlier.former if earlier else present, _normal(fact.value))
            if change != earlier:
                self._record.sysctls[fact.name] = change
                self._record.save()
            self._write(fact.name, fact.value)
        except FileNotFoundError as error:
            raise self._missing(fact.name, operation) from error
        except OSError as error:
            raise refusal(error.errno or errno.EIO, operation) from error

    def restore(self, fact: Sysctl) -> None:
        """Put the former value back, unless somebody has changed ours since.

        Raises `KernelError`, and then remembers it as still to be put back.
        """
        change = self._record.sysctls.get(fact.name)
        if change is None:
            return
        try:
            if self._read(fact.name) == change.given:
                self._write(fact.name, change.former)
        except FileNotFoundError:
            pass  # the interface or module has gone, and the value with it
        except OSError as error:
            operation = f"restore sysctl {fact.name} = {change.former}"
            raise refusal(error.errno or errno.EIO, operation) from error
        del self._record.sysctls[fact.name]
        self._record.save()

    def _read(self, name: str) -> str:
        # Not through pathlib and io: this is done for each sysctl at each look.
        opened = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _normal(os.read(opened, 4096).decode("ascii"))
        finally:
            os.close(opened)

    def _write(self, name: str, value: str) -> None:
        opened = os.open(self._path(name), os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(opened, f"{value}\n".encode("ascii"))
        finally:
            os.close(opened)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name.translate(_SWAPPED)}"

    def _missing(self, name: str, operation: str) -> KernelError:
        """Tell why there is no file for `name`."""
        if name.startswith("net.ipv4.vs."):
            sentence = "ip_vs is not loaded; run `modprobe ip_vs` (and load it at boot)"
            return refusal(errno.ENOENT, operation, sentence)
        if not Path(self._path("net.ipv6")).is_dir() and name.startswith("net.ipv6."):
            return refusal(errno.EAFNOSUPPORT, operation)
        if found := _OF_A_LINK.fullmatch(name):
            link = found[1].replace("/", ".")
            sentence = f"no interface {link} on this host; check `interface` in the configuration"
            return refusal(errno.ENODEV, operation, sentence)
        return refusal(errno.ENOENT, operation, "this kernel has no such sysctl")


def _normal(value: str) -> str:
    return " ".join(value.split())
