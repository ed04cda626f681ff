"""A clipped and noised step of a small network beside a plain one, alternating in one process.

Both draw their batch of about 2,048 patients from 8,192, both update a 100-64-64-1 network on one
thread; the private one samples patients one by one, clips each one's gradient and draws
cryptographic noise.

Baseline: Opacus with ghost clipping takes 2.7 times a plain step of this network, its hooks 50.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from figures import Figure

Result = TypeVar("Result")
PATIENTS, BATCH, COLUMNS = 8192, 2048, 100
WIDTHS = (COLUMNS, 64, 64, 1)
REPEATS, WARM_UP = 300, 30


def measure(options: argparse.Namespace) -> list[Figure]:
    """The figure of this module: the ratio of median times."""
    del options
    plain_ms, private_ms = on_one_thread(
        lambda: alternate(_plain_step(), _private_step(), REPEATS, WARM_UP)
    )
    return [
        Figure(
            id="dp-step-ratio",
            value=round(private_ms / plain_ms, 3),
            unit="of a plain SGD step",
            baseline=2.7,
            goal=1.25,
        )
    ]


def _rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(PATIENTS, COLUMNS))
    return features, (rng.random(PATIENTS) < 0.5).astype(float)


def _plain_step() -> Callable[[], None]:
    import torch

    features, outcomes = (torch.tensor(part, dtype=torch.float32) for part in _rows())
    model = torch.nn.Sequential(
        torch.nn.Linear(COLUMNS, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 1),
    )
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = torch.nn.BCEWithLogitsLoss()

    def step() -> None:
        chosen = torch.randint(PATIENTS, (BATCH,))
        optimiser.zero_grad(set_to_none=True)
        loss(model(features[chosen])[:, 0], outcomes[chosen]).backward()
        optimiser.step()

    return step


def _private_step() -> Callable[[], None]:
    from fedtwin_client.training.learner import make_learner
    from fedtwin_client.training.noise import CryptographicNoise
    from fedtwin_client.training.training_rows import TrainingRows
    from fedtwin_protocol.parameters import initial_parameters

    plan = _plan()
    features, outcomes = _rows()
    learner = make_learner(plan, TrainingRows(features=features, outcomes=outcomes))
    noise = CryptographicNoise(os.urandom(32))
    parameters = initial_parameters(plan)

    def step() -> None:
        nonlocal parameters
        parameters = learner.update(parameters, float(PATIENTS), noise)

    return step


def _plan():
    from fedtwin_protocol.study import StudyPlan

    return StudyPlan.model_validate(
        {
            "study": "dp-step",
            "consortium": "benchmark",
            "title": "A step",
            "purpose": "To be timed",
            "cohort": {"index": {"codes": ["TEST//index"]}},
            "features": [
                {"name": f"x{k}", "kind": "flag", "codes": ["TEST//x"]} for k in range(COLUMNS)
            ],
            "endpoint": {"name": "event", "kind": "event", "codes": ["TEST//e"], "horizon_days": 1},
            "model": {"family": "network", "hidden": list(WIDTHS[1:-1])},
            "training": {"mechanism": "local_steps", "rounds": 1, "learning_rate": 0.1},
            "aggregation": {"rule": "mean"},
            "privacy": {
                "mode": "local",
                "epsilon": 10,
                "delta": 1e-5,
                "clipping_norm": 1,
                "noise_multiplier": 1,
                "sampling_rate": BATCH / PATIENTS,
            },
            "sites": {"quorum": 1},
        }
    )


def on_one_thread(work: Callable[[], Result]) -> Result:
    """Carry work out with torch on one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return work()
    finally:
        torch.set_num_threads(threads)


def alternate(
    plain: Callable[[], None], private: Callable[[], None], repeats: int, warm_up: int
) -> tuple[float, float]:
    """Median milliseconds of this process's own time that each step takes."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(warm_up + repeats):
        for step, record in zip((plain, private), times, strict=True):
            start = time.process_time()
            step()
            if repeat >= warm_up:
                record.append((time.process_time() - start) * 1000)
    return statistics.median(times[0]), statistics.median(times[1])
