"""Bytes on the wire in a steady round of the small job, counted by a relay between the parties.

Baseline: NVFLARE 2.9 moves 366 kB a round for the same job (14 parameters, four sites).
"""

import argparse
import tempfile
from pathlib import Path

from figures import Figure
from processes import open_store, wait_for, wait_for_rounds
from relay import Relay
from small_study import SITES, add_study, enrol_sites, plan

from fedtwin.demo.consortium import LocalConsortium

FIRST, LAST = 20, 220


def measure(options: argparse.Namespace) -> list[Figure]:
    """The figure of this module."""
    del options
    with tempfile.TemporaryDirectory() as folder, LocalConsortium(folder=Path(folder)) as local:
        local.open()
        relay = Relay(lambda: local.port)
        enrol_sites(local, f"localhost:{relay.port}")
        for site in SITES:
            local.start_site(site)
        study = add_study(local, plan("bytes", LAST + 20))
        store = open_store(local)
        wait_for_rounds(store, study, FIRST, 60)
        began, at_begin = store.rounds_closed(study), relay.bytes
        wait_for_rounds(store, study, LAST, 60)
        ended, at_end = store.rounds_closed(study), relay.bytes
        wait_for(store, study, 60)
        store.close()
        relay.close()
    value = (at_end - at_begin) / (ended - began)
    return [
        Figure(id="round-bytes", value=round(value), unit="bytes", baseline=366_000, goal=15_000)
    ]
