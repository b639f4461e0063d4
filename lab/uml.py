"""User-mode Linux: a kernel with ip_vs as a process of the host, without root.

Debian's package user-mode-linux gives the binary `linux.uml` and its modules.
https://docs.kernel.org/virt/uml/user_mode_linux_howto_v2.html
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from lab.places import REPOSITORY, STATE, UNPACKED, LabError, program

MEMORY = "2G"
"""Memory of the guest; the host gives only the pages that are touched."""
_MEMORY_NEEDED = 1 << 30
"""Bytes that must be free on /dev/shm for the guest's memory file to live there."""

_PTRACE_TRACEME, _PTRACE_GETREGSET, _NT_X86_XSTATE = 0, 0x4204, 0x202
_MOV_EDI_SETREGSET = bytes.fromhex("bf05420000")
"""`mov edi, PTRACE_SETREGSET`, which occurs once: in put_fp_registers()."""


def modules() -> Path:
    """Return the folder that holds the guest's modules, by kernel release."""
    for root in (UNPACKED, Path("/")):
        if (found := root / "usr/lib/uml/modules").is_dir():
            return found
    raise LabError("user-mode Linux has no modules here: run script/bootstrap")


def command(serial: int) -> list[str]:
    """Return the command that boots the guest, whose first process is `lab.guest`.

    `serial` is an open descriptor: the host's end of the guest's /dev/ttyS0.  The host's file
    system is the guest's root, read-only, so nothing that happens inside can harm it.
    """
    return [
        str(_image()),
        f"mem={MEMORY}",
        "rootfstype=hostfs",
        "rootflags=/",
        "ro",
        "con=null",
        "con0=null,fd:1",
        f"ssl0=fd:{serial}",
        "quiet",
        "panic=-1",  # a guest that panics ends at once, it does not wait
        f"PYTHONPATH={REPOSITORY}",
        "PYTHONDONTWRITEBYTECODE=1",
        f"init={sys.executable}",
        "--",
        "-m",
        "lab.guest",
    ]


def memory_folder() -> str:
    """Return the folder for the guest's memory file: /dev/shm when it has room."""
    shared = Path("/dev/shm")
    if shared.is_dir() and os.access(shared, os.W_OK):
        room = os.statvfs(shared)
        if room.f_bavail * room.f_frsize >= _MEMORY_NEEDED:
            return str(shared)
    return tempfile.gettempdir()


def _image() -> Path:
    """Return a `linux.uml` that can restore this processor's registers.

    User-mode Linux 6.1 to 6.12 hands PTRACE_SETREGSET a buffer of 2696 bytes (AVX-512 and PKRU,
    HOST_FP_SIZE in arch/x86/um/user-offsets.c).  A host whose processor has more state, such as
    the 8 KiB tiles of AMX, refuses that with EFAULT (xstateregs_set() in
    arch/x86/kernel/fpu/regset.c), and the guest's first process dies.  There we run a copy with
    that one number raised.  What is read beyond the buffer is never used: the header in its
    first 576 bytes says that these parts are in their initial state.
    """
    installed = program("linux.uml")
    if installed is None:
        raise LabError("user-mode Linux (linux.uml) is not here: run script/bootstrap")
    size = _xstate_size()
    original = Path(installed)
    if size <= 2696:
        return original
    stamp = original.stat()
    fitted = STATE / f"linux.uml-{size}-{stamp.st_size}-{stamp.st_mtime_ns}"
    if not fitted.exists():
        STATE.mkdir(exist_ok=True)
        draft = fitted.with_suffix(f".{os.getpid()}")
        draft.write_bytes(fit_xstate(original.read_bytes(), size))
        shutil.copymode(original, draft)
        draft.replace(fitted)
    return fitted


def fit_xstate(image: bytes, size: int) -> bytes:
    """Return the kernel `image` with the size that put_fp_registers() hands over set to `size`.

    An image that does not have the fixed size (Linux 6.13 and later ask the host) is returned
    as it is; raises LabError when the place is not unique.
    """
    fixed = (2696).to_bytes(4, "little") + _MOV_EDI_SETREGSET
    match image.count(fixed):
        case 0:
            return image
        case 1:
            return image.replace(fixed, size.to_bytes(4, "little") + _MOV_EDI_SETREGSET)
        case _:
            raise LabError(
                f"this processor saves {size} bytes of registers, more than this linux.uml "
                "knows: use a host with ip_vs and --kernel host"
            )


class _Buffer(ctypes.Structure):
    """Struct iovec of readv(2)."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _xstate_size() -> int:
    """Return how many bytes of extended registers the host's kernel keeps per process."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    child = os.fork()
    if child == 0:
        libc.ptrace(_PTRACE_TRACEME, 0, None, None)
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    try:
        os.waitpid(child, os.WUNTRACED)
        room = ctypes.create_string_buffer(65536)
        buffer = _Buffer(ctypes.addressof(room), len(room))
        kind = ctypes.c_void_p(_NT_X86_XSTATE)
        failed = libc.ptrace(_PTRACE_GETREGSET, child, kind, ctypes.addressof(buffer))
        return 0 if failed else int(buffer.length)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
