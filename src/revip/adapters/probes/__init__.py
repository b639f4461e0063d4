"""How a backend is asked: https, http and tcp probes, each over a connection that is held.

A probe is bounded by its own deadline and knows at which stage it stopped.  Between probes one
idle connection stays open to each backend: the kernel of a crashing backend sends FIN or RST at
once, so that a crash is heard in milliseconds and not at the next tick.  What is heard that way
is a question, not a verdict: the caller asks again.

Not here: what a result means for a backend (the judge), and when to ask (the agent).
"""

from __future__ import annotations

from revip.adapters.probes.factory import probe_factory

__all__ = ["probe_factory"]
