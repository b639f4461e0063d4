"""The file and the environment to a `Spec`: the only reader of either."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from revip.config.credentials import inspect, inspect_program
from revip.config.document import compose
from revip.config.environment import overlay
from revip.config.files import read_file
from revip.config.parse import parse
from revip.config.reader import Findings
from revip.errors import ConfigError
from revip.model.spec import Spec


def load(path: Path | None, environ: Mapping[str, str], hostname: str) -> Spec:
    """Return what the file at `path` and the `REVIP_*` variables of `environ` ask for.

    Variables win over the file, and can stand alone when `path` is None.  Raises `ConfigError`
    with every problem found.  Warnings are in the spec.
    """
    findings = Findings()
    document = None if path is None else compose(read_file(path), str(path))
    parsed = parse(overlay(document, environ, findings), hostname, findings)
    for files in parsed.files:
        inspect(files, findings)
    if parsed.program is not None:
        inspect_program(parsed.program, findings)
    if findings.problems:
        raise ConfigError(*dict.fromkeys(findings.problems))
    return replace(parsed.spec, warnings=tuple(dict.fromkeys(findings.warnings)))
