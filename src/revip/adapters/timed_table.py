"""A kernel table whose calls are timed and whose refusals are counted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from revip.errors import KernelError
from revip.model.ipvs import Change, Observation, ServiceKey
from revip.planner.measures import Histogram
from revip.ports import KernelTable


class TimedTable:
    """`KernelTable` that passes everything on to another one."""

    def __init__(self, table: KernelTable) -> None:
        self._table = table
        self.durations = {"observe": Histogram(), "apply": Histogram()}
        self.refusals: Counter[tuple[str, int]] = Counter()
        """By call and errno."""

    def observe(self, keys: frozenset[ServiceKey] | None = None) -> Observation:
        """See `KernelTable`."""
        with self._timed("observe"):
            return self._table.observe(keys)

    def apply(self, changes: Sequence[Change]) -> None:
        """See `KernelTable`."""
        with self._timed("apply"):
            self._table.apply(changes)

    def strangers(self, keys: frozenset[ServiceKey]) -> bool:
        """See `KernelTable`."""
        return self._table.strangers(keys)

    def close(self) -> None:
        """See `KernelTable`."""
        self._table.close()

    @contextmanager
    def _timed(self, call: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        except KernelError as error:
            self.refusals[call, error.errno] += 1
            raise
        finally:
            self.durations[call].add(time.perf_counter() - began)
