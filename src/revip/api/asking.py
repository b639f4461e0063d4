"""The client's side of the control socket; imports little, so that `revip status` starts fast."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from revip.errors import RevipError


class RefusedError(RevipError):
    """A command that cannot be carried out; the text goes to the operator."""


def ask(path: Path, command: str, seconds: float = 5.0, **arguments: Any) -> Any:
    """Send one command from a client and return its result.

    Raises `RefusedError` with the agent's own words, or with why it could not be reached.
    """
    request = json.dumps({"command": command, **arguments}).encode() + b"\n"
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(seconds)
            connection.connect(str(path))
            connection.sendall(request)
            with connection.makefile("rb") as answers:
                answer = json.loads(answers.readline() or b"null")
    except (OSError, ValueError) as error:
        raise RefusedError(f"{path}: {_unreachable(error)}") from error
    if not isinstance(answer, dict):
        raise RefusedError(f"{path}: the agent closed the connection without an answer")
    if not answer.get("ok"):
        raise RefusedError(str(answer.get("error")))
    return answer["result"]


def _unreachable(error: Exception) -> str:
    match error:
        case FileNotFoundError() | ConnectionRefusedError():
            return "no agent is running here: start `revip run`, or name its socket with --socket"
        case PermissionError():
            return "permission denied: only the agent's own user (root) may use it"
        case TimeoutError():
            return "the agent does not answer; it may be frozen (SIGSTOP) or overloaded"
        case ConnectionResetError() | BrokenPipeError():
            return "the agent closed the connection: too many clients at once, or it has just ended"
        case _:
            return f"cannot talk to the agent: {error}"
