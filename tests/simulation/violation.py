"""What a check raises."""

from __future__ import annotations


class Violation(AssertionError):  # noqa: N818 (the word of the design)
    """A guarantee is broken."""

    def __init__(self, guarantee: str, at: int, text: str) -> None:
        super().__init__(f"{guarantee} at {at / 1000:.3f} s: {text}")
        self.guarantee = guarantee
        """S1, S2, L1, L2, L3 or L4."""
        self.at = at
