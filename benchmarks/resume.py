"""A coordinator killed with kill -9 in mid-round: how soon its study is on its way again.

Killed three times at moments that fall anywhere in a round, and started again at once, after 2 s
and after 15 s, when the nodes have long begun to dial less often. Timed from the start of the new
process to the first round that it closes; every round that was closed before must still be there.

Baseline: Flower 1.41 and NVFLARE 2.9 lose the job; they were watched for 120 s.
"""

import argparse
import random
import signal
import tempfile
import time
from pathlib import Path

from figures import Figure
from processes import open_store, wait_for_rounds
from small_study import SITES, add_study, enrol_sites, plan

from fedtwin.demo.consortium import LocalConsortium

DOWN_S = (0.0, 2.0, 15.0)
ROUNDS = 100_000


def measure(options: argparse.Namespace) -> list[Figure]:
    """The figure of this module."""
    del options
    moments = random.Random(0)
    with tempfile.TemporaryDirectory() as folder, LocalConsortium(folder=Path(folder)) as local:
        local.open()
        enrol_sites(local)
        for site in SITES:
            local.start_site(site)
        study = add_study(local, plan("resume", ROUNDS))
        server = local.processes[0]
        store = open_store(local)
        wait_for_rounds(store, study, 10, 60)
        times = []
        for down_s in DOWN_S:
            time.sleep(1 + moments.random())
            server.send_signal(signal.SIGKILL)
            server.wait()
            closed = store.rounds_closed(study)
            time.sleep(down_s)
            began = time.monotonic()
            server = local.start_server()
            if store.rounds_closed(study) < closed:
                raise RuntimeError("a whole round was lost")
            wait_for_rounds(store, study, closed + 1, 60)
            times.append(time.monotonic() - began)
        store.close()
    return [Figure(id="resume-s", value=round(max(times), 2), unit="s", baseline=120, goal=10)]
