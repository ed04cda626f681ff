"""UCI heart disease in mode `secure`, over real processes: one study for every re-split.

As in `heart_local`, each study leaves out the patients that its split holds out, and its model is
tried on them at each hospital. Four sites are named, one may vanish. At epsilon 1 one may be in
league with the coordinator and the stated epsilon still holds; at epsilon .25 none. No votes are
bought: with 20 to 100 patients held out beside the split's, three hospitals of four could not be
heard. Accuracy is the mean of four hospitals, AUROC of three (one has hardly any healthy patients
to test on).

Pooled training is a fifth hospital with all four tables: its own noise alone, of the same
multiplier, gives the same epsilon in the same number of rounds, on the same re-splits.

Baselines: FLamby's accuracy with a stated epsilon of 1 is .7015; for AUROC, pooled training without
privacy on the same features, .8251.
"""

import argparse
import tempfile
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from statistics import fmean

import yaml
from figures import Figure, graded
from heart_data import FLAMBY, SITES, SPLITS, find_data, mark, write_table
from heart_local import AT_ONCE, PLANS, Scores, Trial, carry_out, open_hospital, open_hospitals

from fedtwin.demo.consortium import LocalConsortium

NOISE_SEEDS = 20
POOLED_SEEDS = 2
"""Of pooled training, a re-split: its own chance should not decide the difference."""
POOLED = "pooled"
BELOW_POOLED = "secure-heart-below-pooled"
SETTINGS = {
    "one": {"epsilon": 1.0, "noise_multiplier": 5.38, "cohort_count_noise": 20.0},
    "quarter": {
        "epsilon": 0.25,
        "noise_multiplier": 19.3,
        "cohort_count_noise": 60.0,
        "colluding_sites": 0,
    },
}


def measure(options: argparse.Namespace) -> list[Figure]:
    """All figures of this module that are asked for; none where the data are not at hand."""
    data = find_data(options)
    if data is None:
        print("the heart disease figures need the four files: --heart-disease DIR")
        return []
    trials = _trials(options.wanted)
    scores: dict[str, Scores] = {}
    with tempfile.TemporaryDirectory() as folder, LocalConsortium(folder=Path(folder)) as local:
        open_hospitals(local, data)
        if BELOW_POOLED in options.wanted:
            _open_pooled(local, data)
        for start in range(0, len(trials), AT_ONCE):
            for trial, found in carry_out(local, trials[start : start + AT_ONCE], _plan):
                group = scores.setdefault(trial.group, {})
                for key, value in found.items():
                    group.setdefault(key, []).append(value)
    means = {name: {k: fmean(v) for k, v in part.items()} for name, part in scores.items()}
    for name, part in means.items():
        print(name, {key: round(value, 4) for key, value in part.items()})
    return _figures(means)


def _trials(wanted: set[str]) -> list[Trial]:
    def trial(name: str, group: str, split: int) -> Trial:
        return Trial(name=name, group=group, rows="benchmark", split=split, private=True)

    found = []
    if "secure-heart-accuracy" in wanted:
        found += [trial(f"flamby-{seed}", "one/flamby", FLAMBY) for seed in range(NOISE_SEEDS)]
    if wanted & {"secure-heart-auroc", BELOW_POOLED}:
        found += [trial(f"one-{seed}", "one/splits", seed) for seed in SPLITS]
    if "secure-heart-auroc-eps025" in wanted:
        found += [trial(f"quarter-{seed}", "quarter/splits", seed) for seed in SPLITS]
    if BELOW_POOLED in wanted:
        found += [
            trial(f"{POOLED}-{seed}-{again}", f"one/{POOLED}", seed)
            for seed in SPLITS
            for again in range(POOLED_SEEDS)
        ]
    return found


def _open_pooled(local: LocalConsortium, data: Path) -> None:
    parts = []
    for site in SITES:
        write_table(data, site, local.folder / "part.data")
        parts.append((local.folder / "part.data").read_text())
    table = local.folder / f"{POOLED}.data"
    table.write_text("".join(parts))
    open_hospital(local, POOLED, table)


def _plan(trial: Trial) -> dict:
    value = deepcopy(yaml.safe_load((PLANS / "heart-disease.yaml").read_text()))
    value["study"] = trial.name
    value["cohort"] |= {
        "holdout_fraction": 0,
        "exclude_codes": [mark(trial.rows, trial.split)],
    }
    setting = SETTINGS[trial.group.partition("/")[0]]
    value["privacy"] |= {"evaluation_noise": None, "vote_noise": None, **setting}
    value["evaluation"] |= {"unjudged": True}
    value["sites"] |= {"quorum": 4, "invited": list(SITES)}
    if trial.group.endswith(POOLED):
        value["privacy"] |= {"mode": "local"}
        value["evaluation"] |= {"unjudged": False}
        value["sites"] |= {"quorum": 1, "invited": [POOLED]}
    return value


def _figures(means: Mapping[str, Mapping[str, float]]) -> list[Figure]:
    asked = (
        ("secure-heart-accuracy", "one/flamby", "accuracy", 0.7015, 0.81),
        ("secure-heart-auroc", "one/splits", "auroc", 0.8251, 0.823),
        ("secure-heart-auroc-eps025", "quarter/splits", "auroc", 0.8251, 0.82),
    )
    figures = graded(means, asked)
    if f"one/{POOLED}" in means:
        below = means[f"one/{POOLED}"]["auroc"] - means["one/splits"]["auroc"]
        limit = 0.002
        figures.append(
            Figure(id=BELOW_POOLED, value=round(below, 4), unit="AUROC", baseline=limit, goal=limit)
        )
    return figures
