"""Freed memory that is kept needs no pages anew."""

import os
import subprocess
import sys

import pytest

COUNT = """
import resource, sys
import torch
from fedtwin_twins.twin.freed_memory import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
for _ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pieces = [torch.ones(1_000_000, dtype=torch.float64) for _ in range(12)]
    del pieces
    after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(after - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's settings")
def test_kept_memory_is_not_asked_for_again() -> None:
    plain = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    faults = []
    for how in ("kept", "given back"):
        command = [sys.executable, "-c", COUNT, how]
        faults.append(
            int(
                subprocess.run(
                    command, check=True, capture_output=True, env=os.environ | plain
                ).stdout
            )
        )
    assert faults[0] < 0.1 * faults[1]
