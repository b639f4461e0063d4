"""The demo's picture: states from tables, labels that do not overlap, a valid SVG."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st
from lab.timeline import Bucket, Lane, Mark, Segment, Span, Timeline

from lab import timeline

SVG = "{http://www.w3.org/2000/svg}"


def picture(**changes: object) -> Timeline:
    known: dict[str, object] = {
        "title": "a <b> & c",
        "subtitle": "sub",
        "duration_ms": 10_000.0,
        "lanes": (
            Lane("10.0.1.16", "node n1", (Segment(0, 10_000, "in"),)),
            Lane("10.0.1.19", "node n2", (Segment(0, 4000, "in"), Segment(4000, 10_000, "out"))),
        ),
        "marks": (Mark(4000, "killed", "out after 20 ms"),),
        "spans": (Span(1000, 3000, "quiet"),),
        "buckets": (Bucket(0, 20, 0), Bucket(100, 0, 0), Bucket(200, 10, 5)),
        **changes,
    }
    return Timeline(**known)  # type: ignore[arg-type]


def drawn(shown: Timeline) -> ET.Element:
    return ET.fromstring(timeline.render(shown))


def styled(document: ET.Element, tag: str, style: str) -> list[ET.Element]:
    return [e for e in document.iter(SVG + tag) if e.get("class") == style]


def test_a_backend_is_in_draining_or_out_by_the_tables() -> None:
    tables = [(0.0, {"n1": 1}), (5.0, {"n1": 0}), (7.0, {}), (9.0, {"n1": 3})]
    assert timeline.segments(tables, "n1", 12.0) == (
        Segment(0.0, 5.0, "in"),
        Segment(5.0, 7.0, "zero"),
        Segment(7.0, 9.0, "out"),
        Segment(9.0, 12.0, "in"),
    )


def test_a_change_elsewhere_in_the_table_does_not_cut_a_segment() -> None:
    tables = [(0.0, {"n1": 1, "n2": 1}), (5.0, {"n1": 1}), (6.0, {"n1": 2})]
    assert timeline.segments(tables, "n1", 8.0) == (Segment(0.0, 8.0, "in"),)


def test_without_a_table_nothing_is_claimed() -> None:
    assert timeline.segments([], "n1", 8.0) == ()


@given(st.lists(st.dictionaries(st.sampled_from(["n1", "n2"]), st.integers(0, 2)), min_size=1))
def test_segments_cover_the_whole_time_and_neighbors_differ(tables: list[dict[str, int]]) -> None:
    found = timeline.segments([(float(i), t) for i, t in enumerate(tables)], "n1", len(tables))
    assert found[0].start_ms == 0
    assert found[-1].end_ms == len(tables)
    for earlier, later in itertools.pairwise(found):
        assert earlier.end_ms == later.start_ms
        assert earlier.state != later.state


def test_labels_far_apart_share_the_top_row() -> None:
    assert timeline.rows([Mark(0, "a"), Mark(5000, "b")], 0.1) == [0, 0]


def test_a_label_that_would_run_into_the_one_before_goes_below_it() -> None:
    assert timeline.rows([Mark(0, "ipvsadm -C"), Mark(100, "b")], 0.1) == [0, 1]


@given(st.lists(st.integers(0, 30_000), max_size=12, unique=True))
def test_no_label_meets_another_label_or_a_line(instants: list[int]) -> None:
    scale = 0.03
    marks = [Mark(at, "something", "after 300 ms") for at in sorted(instants)]
    rows = timeline.rows(marks, scale)
    width = timeline.CHARACTER * len("after 300 ms")
    for i, (mark, row) in enumerate(zip(marks, rows, strict=True)):
        for other, lower in zip(marks[i + 1 :], rows[i + 1 :], strict=True):
            if lower <= row:  # its label is beside ours, or its line runs through our row
                assert other.at_ms * scale >= mark.at_ms * scale + width


def test_the_picture_is_valid_xml_with_its_texts_escaped() -> None:
    document = drawn(picture())
    assert document.find(f"{SVG}title") is not None
    texts = [element.text for element in document.iter(f"{SVG}text")]
    assert {"a <b> & c", "killed", "out after 20 ms", "quiet", "seconds"} <= set(texts)


def test_each_state_is_drawn_where_and_as_long_as_it_was() -> None:
    (out,) = styled(drawn(picture()), "rect", "s-out")[:1]
    plot = timeline.RIGHT - timeline.LEFT
    assert float(out.get("x", "")) == timeline.LEFT + 0.4 * plot
    assert float(out.get("width", "")) == 0.6 * plot


def test_a_state_too_short_to_see_is_still_drawn() -> None:
    lane = Lane("a", "", (Segment(0, 5000, "in"), Segment(5000, 5001, "out")))
    (out,) = styled(drawn(picture(lanes=(lane,))), "rect", "s-out")[:1]
    assert float(out.get("width", "")) >= 1


def test_failed_requests_are_drawn_and_counted() -> None:
    document = drawn(picture())
    assert len(styled(document, "rect", "failed")) == 2  # the bucket's and the legend's
    assert "5 failed" in [element.text for element in document.iter(f"{SVG}text")]


def test_an_axis_has_at_most_a_dozen_steps() -> None:
    for seconds in (1, 9, 33, 61, 200, 3000):
        document = drawn(picture(duration_ms=seconds * 1000.0, marks=(), spans=()))
        ticks = [e for e in document.iter(f"{SVG}text") if e.get("text-anchor") == "middle"]
        assert 2 <= len(ticks) <= 14


def test_nothing_at_all_still_makes_a_picture() -> None:
    drawn(Timeline("t", "s", 0.0, ()))


def test_the_picture_follows_the_theme_and_needs_nothing_else() -> None:
    text = timeline.render(picture())
    assert "prefers-color-scheme: dark" in text
    assert "href" not in text
    assert "url(" not in text
