"""`python -m lab.inside MODULE ARGUMENTS`: run a Python module in the lab's kernel.

For instance `python -m lab.inside pytest -m kernel tests`.  The guest sees the host's files
read-only; /run, /tmp and /var/tmp are empty and its own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lab import boot
from lab.places import LabError


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the module's exit code; 2 when the lab cannot run."""
    parser = argparse.ArgumentParser(prog="lab.inside", description=__doc__)
    parser.add_argument("--kernel", choices=("host", "uml"), help="default: host if it can")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="give up after this")
    parser.add_argument("module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    chosen = parser.parse_args(arguments)
    boot.heed_sigterm()
    try:
        return boot.run(
            [chosen.module, *chosen.arguments], kernel=chosen.kernel, timeout=chosen.timeout
        )
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
