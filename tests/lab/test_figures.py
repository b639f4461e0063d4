"""Percentiles are values that were measured."""

from __future__ import annotations

import pytest
from lab.figures import Samples, percentile, summary


@pytest.mark.parametrize(
    ("samples", "percent", "expected"),
    [
        ([7.0], 50, 7.0),
        ([7.0], 99, 7.0),
        ([1.0, 2.0], 50, 1.0),
        ([3.0, 1.0, 2.0], 50, 2.0),
        ([4.0, 1.0, 3.0, 2.0], 50, 2.0),
        ([float(value) for value in range(1, 101)], 99, 99.0),
        ([float(value) for value in range(1, 21)], 99, 20.0),
        ([5.0, 9.0], 100, 9.0),
    ],
)
def test_a_percentile_is_the_nearest_rank(
    samples: list[float], percent: float, expected: float
) -> None:
    assert percentile(samples, percent) == expected


def test_no_samples_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)


@pytest.mark.parametrize("percent", [0, -1, 101])
def test_a_percentage_is_above_0_and_at_most_100(percent: float) -> None:
    with pytest.raises(ValueError, match="percentage"):
        percentile([1.0], percent)


def test_a_figure_tells_median_worst_and_count_to_a_tenth() -> None:
    assert summary([1.04, 2.26, 9.99]) == {"p50": 2.3, "p99": 10.0, "n": 3}


def test_samples_of_repetitions_merge() -> None:
    first, second = Samples(), Samples()
    first.add("removed_after_ms", 1)
    second.add("removed_after_ms", 3)
    second.add("readded_after_ms", 5)
    first.merge(second)
    assert first.figures() == {
        "removed_after_ms": {"p50": 1, "p99": 3, "n": 2},
        "readded_after_ms": {"p50": 5, "p99": 5, "n": 1},
    }
