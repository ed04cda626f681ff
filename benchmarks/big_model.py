"""A model of 100 MB of random float32 that four sites exchange for three rounds.

Baselines, the same job on a machine of two cores: NVFLARE 2.9 needs 5.2 s a round at best, has a
peak of 2,190 MB in its coordinator and moves 2.05 times the unavoidable bytes (100 MB down and
100 MB up for each site and round). Bytes are counted by a relay, in a run of its own.
"""

import argparse
import hashlib
import os
import statistics
import tempfile
from pathlib import Path

import numpy as np
import yaml
from figures import Figure
from processes import open_store, peak_mb, wait_for
from relay import Relay
from safetensors.numpy import save_file
from small_study import POLICY, SITES, plan

from fedtwin.demo.consortium import LocalConsortium

VALUES, ROUNDS = 25_000_000, 3
UNAVOIDABLE = 2 * len(SITES) * VALUES * 4


def measure(options: argparse.Namespace) -> list[Figure]:
    """All figures of this module that are asked for."""
    here = str(Path(__file__).parent)  # the sites' workers must find their app
    os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    found = []
    if options.wanted & {"big-model-round-s", "big-model-peak-mb"}:
        seconds, peak, _ = _exchange(counted=False)
        found += [
            Figure(
                id="big-model-round-s",
                value=round(statistics.fmean(seconds), 3),
                unit="s a round, mean of 3",
                baseline=5.2,
                goal=2,
            ),
            Figure(
                id="big-model-peak-mb", value=round(peak, 1), unit="MB", baseline=2190, goal=450
            ),
        ]
    if "big-model-wire-ratio" in options.wanted:
        *_, total = _exchange(counted=True)
        found.append(
            Figure(
                id="big-model-wire-ratio",
                value=round(total / (ROUNDS * UNAVOIDABLE), 4),
                unit="of the unavoidable bytes",
                baseline=2.05,
                goal=1.05,
            )
        )
    return found


def _exchange(counted: bool) -> tuple[list[float], float, int]:
    """Seconds of each round, the coordinator's peak in MB, and the bytes that a relay counted."""
    with tempfile.TemporaryDirectory() as folder, LocalConsortium(folder=Path(folder)) as local:
        local.open()
        relay = Relay(lambda: local.port) if counted else None
        for site in SITES:
            local.enrol(site, (*POLICY, ("model_families", "[big]")))
            settings = local.site(site) / "node.yaml"
            text = settings.read_text()
            text = text.replace("client_apps: {}", "client_apps: {big: 'big_app:app'}")
            if relay is not None:
                text = text.replace(f"localhost:{local.port}", f"localhost:{relay.port}")
            settings.write_text(text)
            local.start_site(site)
        study = _add_study(local)
        store = open_store(local)
        wait_for(store, study, 300)
        seconds = [record.seconds for record in store.rounds(study)]
        store.close()
        peak = peak_mb(local.processes[0].pid)
        return seconds, peak, relay.bytes if relay is not None else 0


def _add_study(local: LocalConsortium) -> str:
    initial = local.folder / "initial.safetensors"
    weights = np.random.default_rng(0).standard_normal(VALUES, dtype=np.float32)
    save_file({"weights": weights.reshape(5_000, -1)}, initial)
    value = plan("big", ROUNDS)
    digest = hashlib.sha256(initial.read_bytes()).hexdigest()
    value["model"] = {"family": "big", "initial_sha256": digest}
    value["training"] |= {"mechanism": "local_steps"}
    value["aggregation"] = {"rule": "mean"}
    value["privacy"] |= {"mode": "none"}
    path = local.folder / "big.yaml"
    path.write_text(yaml.safe_dump(value))
    words = ("--home", str(local.server), "--initial", str(initial), *local.keys)
    local.run("server", "studies", "add", str(path), *words)
    return "big"
