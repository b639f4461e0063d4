"""A kernel image is changed in one number, and only where that number stands once."""

from __future__ import annotations

import pytest
from lab.places import LabError
from lab.uml import fit_xstate

PLACE = bytes.fromhex("880a0000bf05420000")
"""2696, then `mov edi, PTRACE_SETREGSET`."""


def test_the_size_is_raised_in_its_one_place() -> None:
    image = b"\x7fELF" + PLACE + b"rest" + bytes.fromhex("880a0000")
    expected = b"\x7fELF" + bytes.fromhex("002b0000bf05420000") + b"rest"
    assert fit_xstate(image, 11008) == expected + bytes.fromhex("880a0000")


def test_an_image_that_asks_the_host_itself_stays_as_it_is() -> None:
    assert fit_xstate(b"\x7fELF and so on", 11008) == b"\x7fELF and so on"


def test_an_image_with_two_such_places_is_left_alone() -> None:
    with pytest.raises(LabError, match="11008 bytes"):
        fit_xstate(PLACE + PLACE, 11008)
