"""What the node asks for, and what it would do."""

from __future__ import annotations

from dataclasses import dataclass

from revip.model.health import BackendName
from revip.model.ipvs import Change, ServiceKey
from revip.model.notes import Note
from revip.planner.diff import key_of
from revip.planner.service import Ask


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Dump the kernel's table of `keys` and feed the answer back."""

    keys: frozenset[ServiceKey]


@dataclass(frozen=True, slots=True)
class Apply:
    """Make these changes to one virtual server, in this order, and feed the outcome back."""

    changes: tuple[Change, ...]
    known: bool = False
    """It only undoes what somebody does again and again: that has been said."""

    @property
    def key(self) -> ServiceKey:
        """The virtual server that is changed."""
        return key_of(self.changes[0])


Action = Ask | Reconcile | Apply | Note
"""A thing to do, of which `Ask` is a probe and `Note` something to say."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the next reconciliation would do, and why each backend stands where it stands."""

    changes: tuple[Change, ...]
    reasons: dict[str, dict[BackendName, str]]
