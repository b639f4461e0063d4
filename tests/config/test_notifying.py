"""Who is told of events, and what is said when that is written wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest

from revip.config.environment import overlay
from revip.config.reader import Findings
from revip.model.instants import Span
from revip.model.notes import Kind, Level
from revip.model.notify import VARIABLES, CommandSpec, Filter, Format, NotifySpec, Url, WebhookSpec
from tests.config.conftest import GOOD, Asker, Loader

URL = Url(tls=True, host="am.example", port=443, target="/api/v2/alerts")


def webhook(*lines: str, url: str = "https://am.example/api/v2/alerts") -> str:
    text = GOOD + f"notify:\n  webhook:\n    url: {url}\n"
    return text + "".join(f"    {line}\n" for line in lines)


def command(*lines: str) -> str:
    return GOOD + "notify:\n  command:\n" + "".join(f"    {line}\n" for line in lines)


def test_nobody_is_told_when_nothing_is_said(spec_of: Loader) -> None:
    assert spec_of(GOOD).notify == NotifySpec()
    assert spec_of(GOOD + "notify: {}\n").notify == NotifySpec()


def test_a_url_is_enough(spec_of: Loader) -> None:
    spec = spec_of(webhook())
    assert spec.notify == NotifySpec(WebhookSpec(URL))
    assert spec.warnings == ()


def test_a_program_is_enough_and_hears_of_leadership(spec_of: Loader) -> None:
    spec = spec_of(command("argv: [/bin/sh, -c, exit, 0, 0]"))
    assert spec.notify.command == CommandSpec(("/bin/sh", "-c", "exit", "0", "0"))
    assert spec.notify.command.filter == Filter(Level.INFO, (Kind.LEADERSHIP,))


def test_every_key_is_taken(spec_of: Loader, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    token.chmod(0o600)
    spec = spec_of(
        webhook(
            "format: generic",
            """template: '{"text": "{node}: {text}", "n": {id}}'""",
            "content_type: application/vnd.x+json",
            f"token_file: {token}",
            "timeout: 2s",
            "level: error",
            "kinds: [backend.verdict, pool.mode]",
            url='"https://[fd00::1]:9443"',
        )
    )
    assert spec.notify.webhook == WebhookSpec(
        Url(tls=True, host="fd00::1", port=9443, target="/"),
        Format.GENERIC,
        '{"text": "{node}: {text}", "n": {id}}',
        "application/vnd.x+json",
        Span(2000),
        token,
        filter=Filter(Level.ERROR, (Kind.VERDICT, Kind.MODE)),
    )
    assert spec.notify.webhook.url.authority == "[fd00::1]:9443"


def test_variables_do_it_too(spec_of: Loader) -> None:
    environ = {
        "REVIP_NOTIFY_WEBHOOK_URL": "https://am.example/api/v2/alerts",
        "REVIP_NOTIFY_COMMAND_ARGV": "/bin/sh,-c,true",
        "REVIP_NOTIFY_COMMAND_KINDS": "table.drift, table.fight",
    }
    notify = spec_of(GOOD, environ).notify
    assert notify.webhook == WebhookSpec(URL)
    assert notify.command is not None
    assert notify.command.argv == ("/bin/sh", "-c", "true")
    assert notify.command.filter.kinds == (Kind.DRIFT, Kind.FIGHT)


def test_what_a_command_finds_in_its_environment_is_no_mistake(spec_of: Loader) -> None:
    findings = Findings()
    overlay(None, dict.fromkeys(VARIABLES, "x"), findings)
    assert findings.problems == []


@pytest.mark.parametrize(
    ("url", "mend"),
    [
        ("am.example", "is not a URL: write http://HOST:PORT/PATH"),
        ("ftp://am.example/", "is not a URL"),
        ("http://", "is not a URL"),
        ("http://am.example:0/", "is not a URL"),
        ("http://am.example:99999/", "is not a URL"),
        ('"http://[::1/"', "is not a URL"),
        ("https://me:word@am.example/", "holds a user name"),
        ('"https://am.example/#x"', "holds a fragment"),
        ('"https://am.example/a b"', "without blanks"),
        ("https://äm.example/", "printable ASCII"),
        ("[a, b]", "must be a URL"),
        ('""', "is empty"),
    ],
)
def test_a_wrong_url(problems_of: Asker, url: str, mend: str) -> None:
    (problem,) = problems_of(webhook(url=url))
    assert problem.key == "notify.webhook.url"
    assert mend in problem.mend


@pytest.mark.parametrize(
    ("lines", "key", "mend"),
    [
        (["format: alertmanger"], "format", "did you mean alertmanager?"),
        (["format: generic", "template: '{nod}'"], "template", "did you mean node?"),
        (["format: generic", "template: '{\"a\": {text}}'"], None, None),
        (["format: generic", 'template: \'{"a": "{text}"\''], "template", "is not JSON"),
        (["content_type: json"], "content_type", "is not a media type"),
        (['content_type: "a/b\\r\\nX: y"'], "content_type", "is not a media type"),
        (["timeout: 5"], "timeout", "needs a unit"),
        (["timeout: 10m"], "timeout", "must be from 100ms to 60s"),
        (["level: loud"], "level", "must be one of info, warning, error"),
        (["kinds: [backend.verdic]"], "kinds", "did you mean backend.verdict?"),
        (["token_file: /no/such/file"], "token_file", "does not exist"),
        (["ca: /no/such/file"], "ca", "does not exist"),
        (["tokenfile: /x"], "tokenfile", "did you mean token_file?"),
    ],
)
def test_a_wrong_value(
    problems_of: Asker, spec_of: Loader, lines: list[str], key: str | None, mend: str | None
) -> None:
    if key is None or mend is None:
        spec_of(webhook(*lines))
        return
    (problem,) = problems_of(webhook(*lines))
    assert problem.key == f"notify.webhook.{key}"
    assert mend in problem.mend


def test_a_token_does_not_go_in_clear(problems_of: Asker, spec_of: Loader, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    token.chmod(0o600)
    (problem,) = problems_of(webhook(f"token_file: {token}", url="http://am.example/"))
    assert "would go over http in clear" in problem.mend
    assert spec_of(webhook(f"token_file: {token}", url="http://127.0.0.1:9093/")).notify.webhook


def test_what_is_not_used_is_told(spec_of: Loader) -> None:
    (warning,) = spec_of(webhook("template: '{text}'")).warnings
    assert warning.endswith("is not used: it needs format: generic")


def test_a_webhook_needs_its_url(problems_of: Asker) -> None:
    (problem,) = problems_of(GOOD + "notify:\n  webhook: {level: error}\n")
    assert problem.key == "notify.webhook.url"
    assert "is missing" in problem.mend


@pytest.mark.parametrize(
    ("argv", "mend"),
    [
        ("/bin/sh -c true", "must be a list"),
        ("[]", "must be a list"),
        ("[sh]", "must begin with the program's absolute path"),
        ("[[/bin/sh]]", "must be a word of the command"),
        ("[/no/such/program]", "is not there"),
        ("[/etc]", "is not there"),
        ('["/bin/a\\0b"]', "NUL"),
    ],
)
def test_a_wrong_command(problems_of: Asker, argv: str, mend: str) -> None:
    (problem,) = problems_of(command(f"argv: {argv}"))
    assert problem.key == "notify.command.argv"
    assert mend in problem.mend


def test_a_program_must_be_executable(problems_of: Asker, tmp_path: Path) -> None:
    program = tmp_path / "notify.sh"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o644)
    (problem,) = problems_of(command(f"argv: [{program}]"))
    assert problem.mend == f"cannot be started: chmod +x {program}"


def test_sections_must_hold_keys(problems_of: Asker) -> None:
    for text in ("notify: yes\n", "notify: [a]\n"):
        (problem,) = problems_of(GOOD + text)
        assert problem.key == "notify"
    (problem,) = problems_of(GOOD + "notify: {webhook: http://x/}\n")
    assert problem.key == "notify.webhook"
