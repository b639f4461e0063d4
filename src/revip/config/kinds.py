"""The kinds of values: what is written becomes what the model holds, or a sentence says why not.

A kind looks at one value alone; rules between values are in `rules`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from revip.config.tree import Form, Listing, Scalar, Tree
from revip.model.http import Listen
from revip.model.instants import Span
from revip.model.ipvs import IPAddress, Port
from revip.model.notify import PLACEHOLDERS, Url, named

T_co = TypeVar("T_co", covariant=True)
E = TypeVar("E", bound=Enum)

UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
"""Units of a duration, in milliseconds."""
LINK_NAME_MAX = 15
"""IFNAMSIZ of <linux/if.h>, less the final zero."""
NAME_MAX = 253
"""As long as a Kubernetes node name may be (RFC 1123 subdomain)."""


class Unfit(ValueError):  # noqa: N818 - it is an answer for the operator, not a failure of ours
    """The value does not fit; the text says what to write instead."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[T_co]):
    """One kind of value."""

    word: str
    """What the documentation calls it, with its bounds."""
    convert: Callable[[Tree], T_co]
    """Return the value; raise `Unfit` with the mend when it cannot be."""
    plural: bool = False
    """True for lists; an environment variable then separates the items by commas."""
    choices: tuple[str, ...] = ()


def suggestion(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return `: did you mean X?` for the known word nearest to `word`, else `otherwise`."""
    from difflib import get_close_matches  # only a mistake needs it

    known = list(known)
    near = get_close_matches(word, known, n=1, cutoff=0.5)
    near = near or get_close_matches(word.lower(), known, n=1, cutoff=0.5)
    return f": did you mean {near[0]}?" if near else otherwise


def scalar(tree: Tree, wanted: str) -> Scalar:
    """Return `tree` when it is a single value that is written; else raise `Unfit`."""
    if not isinstance(tree, Scalar):
        raise Unfit(f"must be {wanted}, not {tree.shown}")
    if tree.form is Form.NULL or not tree.text:
        raise Unfit(f"is empty: write {wanted}, or remove the key")
    return tree


def word(tree: Tree, wanted: str) -> str:
    """Return the text of `tree`; a bare number or date is refused, as YAML reads it otherwise."""
    value = scalar(tree, wanted)
    if value.form not in (Form.TEXT, Form.VARIABLE):
        raise Unfit(
            f'must be {wanted}, not {value.form.value}: if it is meant, write "{value.text}"'
        )
    return value.text


def matching(name: str, pattern: str, rule: str, longest: int) -> Kind[str]:
    """Return the kind of text that matches all of `pattern`; `rule` says it in words."""
    compiled = re.compile(pattern, re.ASCII)

    def convert(tree: Tree) -> str:
        text = word(tree, name)
        if len(text) > longest:
            raise Unfit(f"is {len(text)} characters long: {longest} at most")
        if not compiled.fullmatch(text):
            raise Unfit(f"is not {name}: {rule}")
        return text

    return Kind(name, convert)


def choice(options: Iterable[str]) -> Kind[str]:
    """Return the kind of one word out of `options`."""
    choices = tuple(options)

    def convert(tree: Tree) -> str:
        text = scalar(tree, "one of " + ", ".join(choices)).text
        if text not in choices:
            near = suggestion(text, choices)
            raise Unfit(f"must be one of {', '.join(choices)}{near}")
        return text

    return Kind("one of " + ", ".join(f"`{option}`" for option in choices), convert, False, choices)


def member(enum: type[E]) -> Kind[E]:
    """Return the kind of one member of `enum`, by its value."""
    names = choice(str(each.value) for each in enum)
    return Kind(names.word, lambda tree: enum(names.convert(tree)), False, names.choices)


def many(each: Kind[T_co], name: str) -> Kind[tuple[T_co, ...]]:
    """Return the kind of a list of `each`; an item written twice is refused."""

    def convert(tree: Tree) -> tuple[T_co, ...]:
        if not isinstance(tree, Listing):
            raise Unfit(f"must be a list, [{tree.shown}], not {tree.shown}")
        items = [each.convert(item) for item in tree.items]
        if len(set(items)) != len(items):
            raise Unfit("names something twice")
        return tuple(items)

    return Kind(name, convert, True, each.choices)


def whole(low: int, high: int) -> Kind[int]:
    """Return the kind of a whole number from `low` to `high`, written in decimal digits."""
    wanted = f"a whole number from {low} to {high}"

    def convert(tree: Tree) -> int:
        value = scalar(tree, wanted)
        if value.form not in (Form.NUMBER, Form.VARIABLE):
            bare = ", without quotes" if re.fullmatch(r"\d+", value.text) else ""
            raise Unfit(f"must be {wanted}{bare}")
        # YAML 1.1 reads 010 as eight and 1:30 as ninety; nobody means that.
        if not re.fullmatch(r"-?(0|[1-9][0-9]{0,18})", value.text, re.ASCII):
            raise Unfit(f"must be {wanted}, in plain decimal digits")
        number = int(value.text)
        if not low <= number <= high:
            raise Unfit(f"must be from {low} to {high}")
        return number

    return Kind(wanted, convert)


def duration(low: str, high: str, step: str = "1ms") -> Kind[Span]:
    """Return the kind of a time from `low` to `high`, a multiple of `step`, with its unit."""
    least, most = span(low), span(high)

    def convert(tree: Tree) -> Span:
        text = scalar(tree, "a duration such as 400ms").text
        if re.fullmatch(r"\d+", text, re.ASCII):
            raise Unfit(f"needs a unit: write {text}ms, {text}s or {text}m")
        if not re.fullmatch(r"\d{1,12}(ms|s|m|h)", text, re.ASCII):
            raise Unfit("is not a duration: write a whole number and ms, s, m or h, such as 400ms")
        if not least <= span(text) <= most:
            raise Unfit(f"must be from {low} to {high}")
        if span(text) % span(step):
            raise Unfit(f"must be a multiple of {step}")
        return span(text)

    steps = "" if step == "1ms" else f" in steps of {step}"
    return Kind(f"duration, {low} to {high}{steps}", convert)


def span(text: str) -> Span:
    """Return the milliseconds of a well-formed duration such as `400ms`."""
    digits = text.rstrip("mhs")
    return Span(int(digits) * UNITS[text[len(digits) :]])


def shown(milliseconds: int) -> str:
    """Write milliseconds as a duration in the largest unit that keeps it whole."""
    for unit, size in sorted(UNITS.items(), key=lambda item: -item[1]):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def _boolean(tree: Tree) -> bool:
    text = scalar(tree, "true or false")
    if text.text not in ("true", "false") or text.form is Form.TEXT:
        raise Unfit("must be true or false, in lower case and without quotes")
    return text.text == "true"


def _address(tree: Tree) -> IPAddress:
    # Any form will do: YAML 1.1 takes some IPv6 addresses for numbers in base sixty.
    text = scalar(tree, "an IP address").text
    try:
        address = ip_address(text)
    except ValueError:
        raise Unfit(f"is not an IP address{_address_hint(text)}") from None
    if address.version == 6 and (address.scope_id or address.ipv4_mapped):
        raise Unfit("must be a plain IPv6 address, without a zone and not IPv4-mapped")
    return address


def _address_hint(text: str) -> str:
    if "/" in text:
        return f": leave out the prefix length, write {text.partition('/')[0]}"
    if re.search(r"[g-zG-Z]", text):
        return ": names are not looked up, write the address"
    return ": write four numbers from 0 to 255, or an IPv6 address"


def _path(tree: Tree) -> Path:
    text = word(tree, "an absolute path")
    if not text.startswith("/"):
        raise Unfit("must be an absolute path, beginning with /")
    if not text.isprintable():
        raise Unfit("must be a path of printable characters")
    return Path(text)


def _listen(tree: Tree) -> Listen | None:
    written = scalar(tree, "an address and port, or off")
    text = written.text
    if text == "off" or (text == "false" and written.form is Form.BOOLEAN):
        return None
    example = "write ADDRESS:PORT such as 127.0.0.1:2112 or [::1]:2112, or off"
    host, _, port = text.rpartition(":")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise Unfit(f"is not an address and port: {example}")
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise Unfit(f"is not an address and port: {example}") from None
    if not re.fullmatch(r"[1-9][0-9]{0,4}", port, re.ASCII) or int(port) > 65535:
        raise Unfit(f"has no port from 1 to 65535: {example}")
    return Listen(address, Port(int(port)))


def _url(tree: Tree) -> Url:
    text = word(tree, "a URL")
    example = "write http://HOST:PORT/PATH or https://HOST/PATH"
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise Unfit("is not a URL: use printable ASCII without blanks, the rest as %XX")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise Unfit(f"is not a URL: {example}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise Unfit(f"is not a URL: {example}")
    if "@" in parts.netloc:
        raise Unfit("holds a user name: leave it out, a token can be given by token_file")
    if "#" in text:
        raise Unfit("holds a fragment (#): leave it out, servers never see it")
    tls = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Url(tls, parts.hostname, port or (443 if tls else 80), target)


def _argv(tree: Tree) -> tuple[str, ...]:
    if not isinstance(tree, Listing) or not tree.items:
        raise Unfit("must be a list: the program's absolute path, and its arguments if any")
    items = tuple(scalar(item, "a word of the command").text for item in tree.items)
    if any("\0" in item for item in items):
        raise Unfit("holds a NUL, which no program can be given")
    if not items[0].startswith("/"):
        raise Unfit(
            f"must begin with the program's absolute path, not {items[0]!r}: no shell is asked"
        )
    return items


def _template(tree: Tree) -> str:
    text = word(tree, "text with {placeholders}")
    for name in named(text):
        if name not in PLACEHOLDERS:
            near = suggestion(name, PLACEHOLDERS, f": there are {', '.join(PLACEHOLDERS)}")
            raise Unfit(f"has no placeholder {{{name}}}{near}")
    return text


def _port(tree: Tree) -> Port:
    return Port(whole(1, 65535).convert(tree))


def _link(tree: Tree) -> str:
    text = word(tree, "an interface name")
    # dev_valid_name() in net/core/dev.c
    if len(text.encode()) > LINK_NAME_MAX or text in (".", "..") or re.search(r"[/:\s]", text):
        raise Unfit(
            f"is not an interface name: at most {LINK_NAME_MAX} bytes, without /, : and blanks"
        )
    return text


BOOLEAN: Kind[bool] = Kind("`true` or `false`", _boolean)
ADDRESS: Kind[IPAddress] = Kind("IP address", _address)
PATH: Kind[Path] = Kind("absolute path", _path)
PORT: Kind[Port] = Kind("port, 1 to 65535", _port)
LISTEN: Kind[Listen | None] = Kind("ADDRESS:PORT or `off`", _listen)
URL: Kind[Url] = Kind("URL, http or https", _url)
ARGV: Kind[tuple[str, ...]] = Kind("list: an absolute path, then arguments", _argv, True)
TEMPLATE: Kind[str] = Kind("text with {placeholders}", _template)
LINK: Kind[str] = Kind("interface name", _link)
NAME = matching(
    "a name",
    r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?",
    "use letters, digits, '-', '_' and '.', with a letter or digit at both ends",
    NAME_MAX,
)
URL_PATH = matching(
    "a URL path",
    r"/[!-~]*",
    "begin with / and use printable ASCII without blanks, such as /readyz?exclude=etcd",
    1024,
)
CONTENT_TYPE = matching(
    "a media type",
    r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(; *[A-Za-z0-9-]+=[A-Za-z0-9_.-]+)?",
    "write it as application/json or text/plain; charset=utf-8",
    127,
)
SERVER_NAME = matching(
    "a host name or address",
    r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9a-fA-F:]+",
    "write it as the certificate has it",
    NAME_MAX,
)
