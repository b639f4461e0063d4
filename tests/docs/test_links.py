"""What the documents name exists: files, anchors, commands, options, scripts, scenarios."""

from __future__ import annotations

import os
import re

import pytest
from lab.scenario import discover

from revip.cli.main import main
from tests.docs.pages import ROOT, Page, between, page, pages

EVERY_PAGE = pytest.mark.parametrize("page_", pages(), ids=lambda page_: page_.name)

_SCENARIOS = re.compile(r"[Ss]cenarios? ((?:`[\w-]+`(?:, | and |, and )?)+)")
_SCRIPT = re.compile(r"(?<![\w/.-])script/([a-z]+)\b")


@EVERY_PAGE
def test_every_relative_link_leads_somewhere(page_: Page) -> None:
    broken = [
        link
        for link in page_.links
        if not re.match(r"[a-z]+:", link)
        and not (page_.path.parent / link.partition("#")[0]).exists()
    ]
    assert broken == []


@EVERY_PAGE
def test_every_anchor_is_a_heading(page_: Page) -> None:
    known = {other.path: other.anchors for other in pages()}
    for link in page_.links:
        file, _, anchor = link.partition("#")
        target = (page_.path.parent / file).resolve() if file else page_.path
        if anchor and not re.match(r"[a-z]+:", link):
            assert anchor in known.get(target, ()), link


@EVERY_PAGE
def test_every_revip_command_exists_with_its_options(
    page_: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    for command, *arguments in page_.commands("revip"):
        if not command[0].islower():
            continue  # prose such as the headline of a status
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0, f"there is no `revip {command}`"
        described = capsys.readouterr().out
        for option in (each for each in arguments if each.startswith("--")):
            assert option in described, f"`revip {command}` has no {option}"


@EVERY_PAGE
def test_every_script_exists_and_can_be_run(page_: Page) -> None:
    for name in set(_SCRIPT.findall(page_.text)):
        assert os.access(ROOT / "script" / name, os.X_OK), f"script/{name}"


@EVERY_PAGE
def test_every_scenario_that_is_named_exists(page_: Page) -> None:
    known = {scenario.name for scenario in discover().all()}
    named = {
        name for names in _SCENARIOS.findall(page_.prose) for name in re.findall(r"[\w-]+", names)
    }
    for words in page_.commands("script/lab"):
        if words[0] == "run":
            named |= {word for word in words[1:] if re.fullmatch(r"[a-z][\w-]+", word)}
    assert named - known - {"and"} == set()


def test_the_readme_lists_every_scenario_with_what_it_shows() -> None:
    rows = [f"| `{scenario.name}` | {scenario.summary} |" for scenario in discover().all()]
    wanted = "\n".join(["| scenario | shows |", "| --- | --- |", *rows, ""])
    assert between(page("README.md").text, "scenarios") == wanted


def test_the_readme_has_a_place_for_the_measured_table() -> None:
    assert "docs/benchmarks.md" in page("README.md").text
    assert between(page("README.md").text, "measured").strip()
