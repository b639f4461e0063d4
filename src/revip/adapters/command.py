"""A program of the operator's, started once for each message."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping

from revip.errors import NotWantedError, TransientError
from revip.model.notify import VARIABLES, CommandSpec, Message

TRY_AGAIN = 75
"""EX_TEMPFAIL of sysexits(3): the program asks to be started again."""
REAP_SECONDS = 1.0
"""How long a killed program is waited for; one that hangs in the kernel stays behind."""
_OURS = ("REVIP_", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_", "INVOCATION_ID")
"""What begins so in our environment is about the agent, and not for its children."""


class CommandMessenger:
    """Starts the command with the message in its environment; see `revip.ports.Messenger`."""

    def __init__(self, spec: CommandSpec, environ: Mapping[str, str]) -> None:
        self._spec = spec
        self._environ = {
            name: value for name, value in environ.items() if not name.startswith(_OURS)
        }

    async def deliver(self, message: Message) -> None:
        """See Messenger.

        Cancellation kills it.  Raises `TransientError` when it cannot be started, takes too long
        or exits with 75, and `NotWantedError` for every other exit code but 0.
        """
        program, *arguments = self._spec.argv
        if message.transition is not None:
            arguments += message.transition.arguments
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                *arguments,
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=DEVNULL,
                cwd="/",
                env=self._environ | _variables(message),
                start_new_session=True,  # so that it can be killed with its children
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise TransientError(f"{program} cannot be started: {reason}") from error
        try:
            async with asyncio.timeout(self._spec.timeout / 1000):
                code = await process.wait()
        except TimeoutError as error:
            await _kill(process)
            text = f"{program} was killed: it took longer than {self._spec.timeout} ms"
            raise TransientError(text) from error
        except asyncio.CancelledError:
            await _kill(process)
            raise
        _judge(program, code)


def _judge(program: str, code: int) -> None:
    if code == TRY_AGAIN:
        raise TransientError(f"{program} ended with exit code {code} (try again)")
    if code < 0:
        raise NotWantedError(f"{program} was ended by signal {-code}")
    if code:
        raise NotWantedError(f"{program} ended with exit code {code}")


async def _kill(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(REAP_SECONDS):
            await process.wait()


def _variables(message: Message) -> dict[str, str]:
    note, transition = message.event.note, message.transition
    values = (
        *(note.kind.value, note.level.value, note.text, note.virtual_server, note.backend),
        "true" if message.ends else "false",
        message.event.time.isoformat(timespec="milliseconds"),
        message.node,
        "" if transition is None else transition.state.value,
    )
    # A NUL would end it early and a lone surrogate cannot be written: execve(2) takes neither.
    return {
        name: value.replace("\0", "").encode("utf-8", "replace").decode()
        for name, value in zip(VARIABLES, values, strict=True)
    }
