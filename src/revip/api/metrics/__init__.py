"""Every metric there is, as one table; `docs/metrics.md` is generated from it.

Labels hold only what the configuration and our own code name: virtual servers, backends, kinds.
Base units, `_total` for counters: https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

from revip.api.exposition import exposition
from revip.api.metrics.agent import AGENT
from revip.api.metrics.facts import Facts
from revip.api.metrics.kernel import KERNEL
from revip.api.metrics.pool import POOL

__all__ = ["FAMILIES", "Facts", "markdown", "render"]

FAMILIES = (*KERNEL, *POOL, *AGENT)

_PREAMBLE = """\
# Metrics

<!-- Written by revip.api.metrics.markdown() from the table of metrics; a test compares. -->

`/metrics` of the [HTTP endpoint](http.md) answers in Prometheus' text format 0.0.4. Labels hold
only names of the configuration and of revip itself, so that their number is bounded: about 40
series for each backend, and 100 for each agent.

| metric | type | labels | |
| --- | --- | --- | --- |
"""


def render(facts: Facts) -> bytes:
    """Return the answer to `/metrics`."""
    return exposition(FAMILIES, facts)


def markdown() -> str:
    """Return the text of `docs/metrics.md`."""
    rows = (
        f"| `{family.name}` | {family.type.value} |"
        f" {', '.join(f'`{label}`' for label in family.labels)} | {family.help} |\n"
        for family in FAMILIES
    )
    return _PREAMBLE + "".join(rows)
