"""PROCOVA in 10,000 trials without an effect: errors of the first kind, and the variance saved.

Outcomes are normal; the score correlates with them by .5 (case T02 of the field's own tables). The
arms are allocated in blocks, the score is frozen first, and the analysis is the product's own.
"""

import argparse

import numpy as np
from figures import Figure

from fedtwin_twins.trials.allocation import allocate
from fedtwin_twins.trials.analysis import difference, procova
from fedtwin_twins.trials.covariates import Covariate
from fedtwin_twins.trials.population import Population, VirtualPatients, draw_population
from fedtwin_twins.trials.prognosis import freeze
from fedtwin_twins.trials.streams import Floats, Streams

TRIALS = 10_000
PER_ARM = 200
CORRELATION = 0.5
SEED = 20260101


class Known:
    """A score that foretells the share of the outcome that can be foretold."""

    name = "the covariate itself"

    def predict(self, patients: VirtualPatients) -> Floats:
        """(patients,)."""
        return patients.covariates["risk"]


def one_trial(number: int, population: Population) -> tuple[float, float, float, float]:
    """Adjusted and plain estimate, and their p values, without any effect."""
    streams = Streams(seed=SEED, replicates=(number,), first=0, count=2 * PER_ARM)
    patients = draw_population(population, streams)
    score = freeze(Known(), patients)
    allocation = allocate((1, 1), streams, score)
    noise = streams.normals("outcome")
    outcome = CORRELATION * patients.covariates["risk"] + np.sqrt(1 - CORRELATION**2) * noise
    plain = difference(outcome, allocation.arm == 1)
    adjusted = procova(outcome, patients, (1, 0), allocation, score)
    return adjusted.effect, plain.effect, adjusted.p_value, plain.p_value


def measure(options: argparse.Namespace) -> list[Figure]:
    """Both figures from the same trials."""
    risk = Covariate(
        name="risk", unit="1", distribution="normal", mean=0, sd=1, lowest=-8, highest=8,
        source="a standard normal number",
    )  # fmt: skip
    population = Population(ancestry={"EUR": 1.0}, covariates=(risk,))
    found = np.array([one_trial(number, population) for number in range(TRIALS)])
    ratio = found[:, 0].var(ddof=1) / found[:, 1].var(ddof=1)
    wrong = (found[:, 2:] < 0.05).mean(axis=0)
    print(
        f"{TRIALS} trials without an effect, {PER_ARM} an arm: errors of the first kind adjusted "
        f"{wrong[0]:.4f}, plain {wrong[1]:.4f}; variance ratio {ratio:.4f}, "
        f"1 - R^2 {1 - CORRELATION**2:.4f}"
    )
    return [
        Figure(
            id="procova-type1",
            value=round(float(abs(wrong[0] - 0.05)), 5),
            unit="off 5 %",
            baseline=round(float(abs(wrong[1] - 0.05)), 5) or 1e-5,
            goal=0.005,
        ),
        Figure(
            id="procova-variance",
            value=round(float(abs(ratio / (1 - CORRELATION**2) - 1)), 5),
            unit="off 1 - R^2",
            baseline=1 - CORRELATION**2,
            goal=0.05,
        ),
    ]
