"""The key table for readers: `docs/configuration.md` and `revip check --explain`."""

from __future__ import annotations

from dataclasses import dataclass

from revip.config.keys import BACKENDS_VARIABLE, MEMBER, SECTIONS, SERVER, Key, Section

_PREAMBLE = """\
# Configuration

<!-- Written by revip.config.reference.markdown() from the key table; a test compares. -->

`revip run --config FILE` reads one YAML file; `examples/revip.yaml` is one to start from, and
`revip check --config FILE` says everything that is wrong with it at once, each problem with its
line. Durations are written with their unit (`400ms`, `3s`, `10m`, `1h`). Unknown keys, duplicate
keys and tags are errors; anchors, aliases and merge keys (`<<`) are not.

Each key but those of single backends has an environment variable. Variables win over the file,
and one virtual server can be described by them alone, without a file; with more than one in the
file, variables about virtual servers are refused. Items of a list are separated by commas. An
unknown `REVIP_*` variable is an error (`REVIP_CONFIG` names the file).
"""
_BACKENDS_FILE = """
## The backends file

`backends_file` names a file of its own for the list, which revip watches:

```yaml
count: 3
backends:
  - {name: n1, address: 10.0.1.16}
  - {name: n2, address: 10.0.1.19}
  - {name: n3, address: 10.0.1.20}
```

Replace it by a rename (`mv new backends.yaml`). A file that is missing, invalid or half written
changes nothing: the last good set goes on, and the problem is logged once and shown in the
status. The file must end with a line feed, and is read once it has not changed for 100 ms.
`count` is optional; with it a file that was cut off between two lines is refused too. An empty
list is refused unless the file says `allow_empty: true`. Until the file has been read for the
first time, `backends` of the main file is what counts.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One key, as a reader wants to know it."""

    path: str
    """E.g. `virtual_servers[].probe.kind`."""
    kind: str
    default: str
    """As written in YAML, or in words; `required` where there is none."""
    variable: str
    """Environment variable; empty when there is none."""
    doc: str


def rows() -> tuple[Row, ...]:
    """Return every key, in the order of the documentation."""
    return tuple(_row(section, key) for section in SECTIONS for key in section.keys)


def explanation() -> str:
    """Return every key as text for a terminal."""
    blocks = [
        f"{row.path}\n    {row.doc}\n    {row.kind}; {row.default}"
        + (f"; {row.variable}" if row.variable else "")
        for row in rows()
    ]
    return "\n".join(blocks).replace("`", "") + "\n"


def markdown() -> str:
    """Return the text of `docs/configuration.md`."""
    return _PREAMBLE + "".join(map(_section, SECTIONS)) + _BACKENDS_FILE


def _section(section: Section) -> str:
    title = f"`{section.path}`" if section.path else "Top"
    lines = [f"\n## {title}\n\n{section.doc}\n", "| key | kind | default | variable | |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for key in section.keys:
        row = _row(section, key)
        variable = f"`{row.variable}`" if row.variable else ""
        lines.append(f"| `{key.name}` | {row.kind} | {row.default} | {variable} | {row.doc} |")
    if section is SERVER:
        doc = f"The servers behind it, see `{MEMBER.path}`."
        absent = "`[]`; needs `backends_file` then"
        lines.append(f"| `backends` | list | {absent} | `{BACKENDS_VARIABLE}` | {doc} |")
    return "\n".join(lines) + "\n"


def _row(section: Section, key: Key[object]) -> Row:
    path = f"{section.path}.{key.name}" if section.path else key.name
    default = f"`{key.default}`" if key.default else key.absent
    required = "**required**" if key.required else "none"
    return Row(path, key.kind.word, default or required, section.variable(key), key.doc)
