"""A small job over real processes: cold start, a steady round, memory.

Baselines, the same job on a machine of two cores, four sites in separate processes, TLS: NVFLARE
2.9 needs 72 s from a cold start, 2.56 s a round and 256 MB for its coordinator; a site's processes
take 225 MB. A round's own computing is what a site's worker needs for its sum; it is timed here in
this process on the same rows, and taken off the coordinator's time for the round.
"""

import argparse
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from figures import Figure
from processes import open_store, peak_mb, wait_for
from small_study import SITES, add_study, enrol_sites, plan

from fedtwin.demo.consortium import LocalConsortium

ROUNDS, STEADY_ROUNDS, REPEATS = 20, 200, 3


def measure(options: argparse.Namespace) -> list[Figure]:
    """All figures of this module."""
    del options
    with tempfile.TemporaryDirectory() as folder, LocalConsortium(folder=Path(folder)) as local:
        local.open()
        enrol_sites(local)
        own_ms = own_computing_ms(local)
        starts = [_cold_start(local, f"cold-{number}") for number in range(REPEATS)]
        overheads, coordinator, agent = _steady(local, own_ms)
    return [
        Figure(
            id="round-overhead-ms",
            value=round(statistics.median(overheads), 3),
            unit="ms a round, median",
            baseline=2560,
            goal=10,
        ),
        Figure(
            id="cold-start-s",
            value=round(statistics.median(starts), 3),
            unit="s, median of 3",
            baseline=72,
            goal=8,
        ),
        Figure(id="coordinator-mb", value=round(coordinator, 1), unit="MB", baseline=256, goal=130),
        Figure(id="agent-mb", value=round(agent, 1), unit="MB", baseline=225, goal=130),
    ]


def _cold_start(local: LocalConsortium, study: str) -> float:
    """Seconds from starting five processes to the finished study."""
    add_study(local, plan(study, ROUNDS))
    local.close()
    began = time.monotonic()
    local.start_server()
    for site in SITES:
        local.start_site(site)
    store = open_store(local)
    wait_for(store, study, 120)
    store.close()
    return time.monotonic() - began


def _steady(local: LocalConsortium, own_ms: float) -> tuple[list[float], float, float]:
    """Milliseconds of each round but the first ones, and the peaks of coordinator and agents."""
    study = add_study(local, plan("steady", STEADY_ROUNDS))
    store = open_store(local)
    wait_for(store, study, 120)
    rounds = store.rounds(study)[10:]
    store.close()
    server, *agents = local.processes[-5:]
    peaks = [peak_mb(process.pid) for process in agents]
    return (
        [record.seconds * 1000 - own_ms for record in rounds],
        peak_mb(server.pid),
        max(peaks),
    )


def own_computing_ms(local: LocalConsortium) -> float:
    """What one site's worker computes in a round: its clipped, noised sum."""
    import os

    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.training.apps import TaskInput
    from fedtwin_client.training.built_in import BuiltIn, load_rows
    from fedtwin_protocol.parameters import initial_parameters
    from fedtwin_protocol.payload import Payload
    from fedtwin_protocol.study import plan_from_value

    study = plan_from_value(plan("own", ROUNDS), "the benchmark's plan")
    records = NodeHome(folder=local.site(SITES[0])).records
    app = BuiltIn(study, load_rows(study, records, datetime.now(UTC)), os.urandom(32))
    task = TaskInput(
        kind="train",
        round_number=1,
        payload=Payload(arrays={"arrays": initial_parameters(study)}),
        reported_count=150.0,
    )
    times = []
    for _ in range(200):
        began = time.perf_counter()
        app.answer(task)
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)
