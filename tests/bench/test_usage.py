"""What processes cost, read from /proc."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from bench import usage


def test_a_family_is_a_process_and_its_descendants() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            assert set(usage.family(os.getpid())) >= {os.getpid(), child.pid}
            assert usage.family(child.pid) == [child.pid]
        finally:
            child.kill()


def test_processor_time_grows_by_what_is_used() -> None:
    before, used = usage.processor_seconds([os.getpid()]), time.process_time()
    while time.process_time() - used < 0.1:
        pass
    grown = usage.processor_seconds([os.getpid()]) - before
    assert 0.05 < grown < 5


def test_memory_shared_with_nobody_counts_in_full() -> None:
    program = "import sys; b = b'x' * (32 << 20); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        pss, rss = usage.memory([child.pid])
        child.communicate()
    assert 32 < pss <= rss < 100
