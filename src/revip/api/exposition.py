"""Prometheus' text format 0.0.4, written by hand: families of samples with HELP and TYPE.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import accumulate
from typing import Generic, TypeVar

from revip.planner.measures import DURATIONS, Histogram

F_contra = TypeVar("F_contra", contravariant=True)


class Type(Enum):
    """The types of the format that we use."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


Sample = tuple[Sequence[str], float | Histogram]
"""The values of the labels, in the family's order, and the value."""


@dataclass(frozen=True, slots=True)
class Family(Generic[F_contra]):
    """One metric: what it is called, what it means, and where its samples come from."""

    name: str
    type: Type
    help: str
    labels: tuple[str, ...]
    samples: Callable[[F_contra], Iterable[Sample]]


def exposition(families: Iterable[Family[F_contra]], facts: F_contra) -> bytes:
    """Return all families with their samples; those that have none are left out."""
    lines: list[str] = []
    for family in families:
        begun = len(lines)
        lines += (
            f"# HELP {family.name} {family.help}",
            f"# TYPE {family.name} {family.type.value}",
        )
        for values, value in family.samples(facts):
            labels = _labels(family.labels, tuple(values))
            if isinstance(value, Histogram):
                lines += _histogram(family.name, labels, value)
            else:
                lines.append(
                    f"{family.name}{{{labels}}} {_number(value)}"
                    if labels
                    else f"{family.name} {_number(value)}"
                )
        if len(lines) == begun + 2:
            del lines[begun:]
    lines.append("")
    return "\n".join(lines).encode(errors="backslashreplace")


def _histogram(name: str, labels: str, histogram: Histogram) -> Iterator[str]:
    comma = "," if labels else ""
    so_far = list(accumulate(histogram.counts))
    for bound, count in zip((*DURATIONS, "+Inf"), so_far, strict=True):
        yield f'{name}_bucket{{{labels}{comma}le="{bound}"}} {count}'
    braces = f"{{{labels}}}" if labels else ""
    yield f"{name}_sum{braces} {_number(histogram.sum)}"
    yield f"{name}_count{braces} {so_far[-1]}"


@lru_cache(maxsize=4096)
def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    return ",".join(
        f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)
    )


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(value)
