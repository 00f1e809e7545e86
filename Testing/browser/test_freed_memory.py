"""What the viewer frees, it does not keep."""

import asyncio
import sys
from pathlib import Path

import numpy as np
import pytest

from BoneSAMLib.browser import freed_memory
from BoneSAMLib.browser.freed_memory import FreedMemory, give_back_memory

glibc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="about glibc's memory")


def held():
    """MB of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1000


@glibc
def test_freed_memory_between_kept_memory_is_given_back():
    arrays = [np.ones(60_000, np.uint8) for _ in range(2000)]
    kept = arrays[::10]
    full = held()
    del arrays
    before = held()
    assert before > full - 20, "the C library gives it back by itself: nothing is to be done"
    give_back_memory()
    assert held() < before - 70
    assert all(array.all() for array in kept)


def test_once_in_a_while_however_much_is_done(monkeypatch):
    given = []
    monkeypatch.setattr(freed_memory, "_PERIOD", 0.02)
    monkeypatch.setattr(freed_memory, "give_back_memory", lambda: given.append(1))

    async def work():
        memory = FreedMemory(asyncio.get_running_loop())
        await asyncio.sleep(0.06)
        assert given == []  # nothing was done
        for _ in range(100):
            memory.soon()
        await asyncio.sleep(0.2)
        assert given == [1]
        memory.soon()
        memory.close()
        await asyncio.sleep(0.06)
        assert given == [1]

    asyncio.run(work())
