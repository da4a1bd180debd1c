"""What a training asks of the machine's allocator."""

import os
import subprocess
import sys

import pytest

ARENAS = """
import ctypes, os, sys, threading
libc = ctypes.CDLL("libc.so.6")
libc.fopen.restype = libc.malloc.restype = ctypes.c_void_p
if sys.argv[2] == "shared":
    from mjx_hkl.training.devices import share_arenas
    share_arenas()
count = 4 * max(2, os.cpu_count())
together = threading.Barrier(count)
def allocate():
    libc.malloc(ctypes.c_size_t(1000))
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(count)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of the GNU C library")
def test_threads_share_an_arena_for_each_core(tmp_path):
    cores = max(2, os.cpu_count() or 2)
    arenas = {}
    for how in ("own", "shared"):
        subprocess.run([sys.executable, "-c", ARENAS, str(tmp_path / how), how], check=True, timeout=60)
        arenas[how] = (tmp_path / how).read_text().count("<heap nr")
    assert arenas["shared"] <= cores
    assert arenas["own"] > cores
