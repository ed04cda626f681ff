"""What the operating system says of a running process, and waiting for a study."""

import re
import time
from pathlib import Path

from fedtwin.demo.consortium import LocalConsortium
from fedtwin_server.coordinator import Home
from fedtwin_server.store import Store

ENDS = {"finished", "failed", "stopped"}


def peak_mb(process_id: int) -> float:
    """The largest resident memory so far, MB (VmHWM of Linux)."""
    text = Path(f"/proc/{process_id}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    assert found, "this system does not tell a process's peak memory"
    return int(found.group(1)) * 1024 / 1e6


def open_store(consortium: LocalConsortium) -> Store:
    """The coordinator's store, to look on."""
    return Home(folder=consortium.server).store()


def wait_for(store: Store, study: str, patience_s: float) -> None:
    """Wait for a study's end.

    Raises:
        RuntimeError: it failed, or did not end in time.
    """
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        record = store.study(study)
        if record.status in ENDS:
            break
        time.sleep(0.02)
    if record.status != "finished":
        journal = "\n".join(event.text for event in store.journal(study))
        raise RuntimeError(f"study {study} is {record.status}: {record.reason}\n{journal}")


def wait_for_rounds(store: Store, study: str, rounds: int, patience_s: float) -> None:
    """Wait until so many rounds are closed."""
    deadline = time.monotonic() + patience_s
    while store.rounds_closed(study) < rounds:
        if time.monotonic() > deadline:
            raise RuntimeError(f"study {study} did not close {rounds} rounds in {patience_s:g} s")
        time.sleep(0.005)
