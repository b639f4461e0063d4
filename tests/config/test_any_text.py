"""Whatever is written, the answer is a spec or problems: never another exception."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revip.config.document import compose
from revip.config.environment import overlay
from revip.config.environment import settings as variables
from revip.config.keys import SECTIONS
from revip.config.parse import parse
from revip.config.reader import Findings
from revip.errors import ConfigError
from tests.config.conftest import GOOD

KEYS = st.sampled_from([*{key: 0 for section in SECTIONS for key in section}, "<<", "odd"])
NUMBERS = (
    "~",
    "1",
    "-1",
    "1e9",
    "0x10",
    "yes",
    "true",
    "2024-01-01",
    "1:30",
    "10.0.1.10",
    "fd00::1",
)
WORDS = (
    "::ffff:1.2.3.4",
    "400ms",
    f"{'9' * 30}s",
    "mh",
    "/x",
    "'6443'",
    "''",
    "*a",
    "&a",
    "!t",
    "²",
)
SCALARS = st.sampled_from([*NUMBERS, *WORDS])
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(KEYS, inner, max_size=4).map(
            lambda block: "{" + ", ".join(f"{key}: {value}" for key, value in block.items()) + "}"
        ),
    ),
    max_leaves=12,
)


def read(text: str, environ: dict[str, str]) -> Findings:
    findings = Findings()
    try:
        parse(overlay(compose(text, "f"), environ, findings), "host", findings)
    except ConfigError as error:
        findings.problems.extend(error.problems)
    return findings


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), TREES, TREES.map(lambda tree: f"virtual_servers: [{tree}]")))
def test_any_document_gets_an_answer(text: str) -> None:
    for problem in read(text, {}).problems:
        assert problem.mend
        assert "\n" not in str(problem)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(KEYS, TREES)
def test_any_value_in_place_of_a_good_one_gets_an_answer(key: str, value: str) -> None:
    lines = [line for line in GOOD.splitlines() if not line.strip().startswith(f"{key}:")]
    lines.insert(3, f"    {key}: {value}")
    for problem in read("\n".join(lines), {}).problems:
        assert "\n" not in str(problem)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from([*variables(), "REVIP_BACKENDS"]), SCALARS | st.text()))
def test_any_variables_get_an_answer(environ: dict[str, str]) -> None:
    for problem in read(GOOD, environ).problems:
        assert "\n" not in str(problem)
