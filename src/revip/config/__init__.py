"""Text to `Spec`, with every problem named at once."""

from __future__ import annotations

from revip.config.backends import parse_backends
from revip.config.load import load

__all__ = ["load", "parse_backends"]
