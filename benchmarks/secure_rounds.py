"""A steady secure round over real processes: four sites, 13 features, loopback.

What is taken off as computing is what one site's worker needs for its sum and its noise, timed in
this process on the same rows; all five steps of the sum, masks, signatures, ledgers and disks are
in the figure. Baseline: the same round in mode `local` may take 10 ms.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from figures import Figure
from processes import open_store, wait_for
from small_rounds import own_computing_ms
from small_study import SITES, add_study, enrol_sites, plan

from fedtwin.demo.consortium import LocalConsortium

ROUNDS = 100


def measure(options: argparse.Namespace) -> list[Figure]:
    """The figure of this module."""
    del options
    with tempfile.TemporaryDirectory() as folder, LocalConsortium(folder=Path(folder)) as local:
        local.open()
        enrol_sites(local)
        own_ms = own_computing_ms(local)
        for site in SITES:
            local.start_site(site)
        study = add_study(local, _plan())
        store = open_store(local)
        wait_for(store, study, 180)
        rounds = store.rounds(study)[10:]
        store.close()
    median = statistics.median(record.seconds * 1000 for record in rounds)
    return [
        Figure(
            id="secure-round-overhead-ms",
            value=round(median - own_ms, 2),
            unit="ms a round, median",
            baseline=10,
            goal=60,
        )
    ]


def _plan() -> dict[str, object]:
    value = plan("secure-steady", ROUNDS)
    privacy = {**value["privacy"], "mode": "secure"}  # type: ignore[dict-item]
    return {
        **value,
        "privacy": privacy,
        "evaluation": {"unjudged": True},
        "sites": {"quorum": 4, "invited": list(SITES)},
    }
