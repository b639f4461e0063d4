"""The page: one file of the package, served as it is, and allowed nothing but itself."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from revip.api.http.messages import Response

PAGE = Path(__file__).parents[1] / "page" / "index.html"


@cache
def page() -> Response:
    """Return the page."""
    content = PAGE.read_bytes()
    return Response(200, content, "text/html; charset=utf-8", _headers(content))


def _headers(content: bytes) -> tuple[tuple[str, str], ...]:
    # Only the very script and style that are in the file run (CSP level 2, section 4.2).
    scripts = " ".join(map(_hash, re.findall(rb"<script>(.*?)</script>", content, re.DOTALL)))
    styles = " ".join(map(_hash, re.findall(rb"<style>(.*?)</style>", content, re.DOTALL)))
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; connect-src 'self';"
        " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return (
        ("Cache-Control", "no-cache"),
        ("Content-Security-Policy", policy),
        ("Referrer-Policy", "no-referrer"),
    )


def _hash(content: bytes) -> str:
    import base64  # not for an agent whose page nobody opens
    import hashlib

    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"
