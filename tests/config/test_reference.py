"""The documentation of the keys is the key table."""

from __future__ import annotations

from pathlib import Path

from revip.config.keys import SECTIONS
from revip.config.reference import explanation, markdown, rows


def test_the_document_is_current() -> None:
    remake = (
        "run python -c \"from revip.config.reference import markdown; print(markdown(), end='')\""
        " > docs/configuration.md"
    )
    assert Path("docs/configuration.md").read_text() == markdown(), remake


def test_every_key_is_explained() -> None:
    text = explanation()
    for row in rows():
        assert row.path in text
        assert row.doc.endswith(".")
    assert len(rows()) == sum(len(section.keys) for section in SECTIONS)


def test_a_key_is_required_or_says_what_happens_without_it() -> None:
    for row in rows():
        assert row.default
