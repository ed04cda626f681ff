"""UCI heart disease with one hospital that lies: what the other three lose.

Four real nodes; VA, with 17 % of the patients, runs changed software (`lying_hospital`). For each
rule and each lie the study is carried out for several re-splits at epsilon 1, and its model tried
on the held-out patients of Cleveland and Hungary (Switzerland's held-out patients have at most one
without disease). The figure is the worst rule's loss of AUROC against the plain sum with nobody
lying, means over the re-splits.

Baseline: .757, what the plain sum loses where -100 times the liar's update is added unchecked (from
.8801 to .1232, the same data in one place).
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

import numpy as np
import yaml
from figures import Figure
from heart_data import ROOT, SITES, find_data, mark, write_mapping, write_table
from processes import open_store, wait_for

from fedtwin.demo.consortium import LocalConsortium

PLAN = ROOT / "cli" / "fedtwin" / "demo" / "plans" / "heart-disease.yaml"
LIAR, HONEST = "va", ("cleveland", "hungarian")
RE_SPLITS = 5
AT_ONCE = 4
POLICY = (("when_allowed", "accept"), ("epsilon_lifetime", "1000"), ("modes", "[local]"))
# The plain sum has nothing against a lie that fits its bound; votes are for that.
LIES = {
    "none": ("x100", "flip"),
    "trimmed": ("x100", "flip", "hard"),
    "median": ("x100", "flip", "hard"),
    "krum": ("x100", "flip", "hard"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One study: a rule, a lie, a re-split."""

    robust: str
    lie: str
    split: int

    @property
    def name(self) -> str:
        """The study's; the liar reads its lie in it."""
        return f"{self.lie}-{self.robust}-{self.split}"


def measure(options: argparse.Namespace) -> list[Figure]:
    """The figure; none where the data are not at hand."""
    data = find_data(options)
    if data is None:
        print("the poisoning figure needs the four files: --heart-disease DIR")
        return []
    cases = [("none", "clean"), *((rule, lie) for rule, lies in LIES.items() for lie in lies)]
    trials = [
        Trial(robust=rule, lie=lie, split=split)
        for split in range(RE_SPLITS)
        for rule, lie in cases
    ]
    found: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, LocalConsortium(folder=Path(folder)) as local:
        _open(local, data)
        for start in range(0, len(trials), AT_ONCE):
            for trial, auroc in _carry_out(local, trials[start : start + AT_ONCE]):
                found.setdefault((trial.robust, trial.lie), []).append(auroc)
    clean = fmean(found["none", "clean"])
    losses = {case: clean - fmean(values) for case, values in found.items() if case[1] != "clean"}
    for (rule, lie), loss in losses.items():
        print(f"  rule {rule:8} lie {lie:5} loses {loss:+.4f} of {clean:.4f}")
    return [
        Figure(
            id="poisoning-auroc-loss",
            value=round(max(losses.values()), 4),
            unit="AUROC",
            baseline=0.757,
            goal=0.01,
        )
    ]


def _open(local: LocalConsortium, data: Path) -> None:
    local.open()
    write_mapping(local.folder / "mapping.yaml")
    before = os.environ.get("PYTHONPATH", "")
    for site in SITES:
        table = local.folder / f"processed.{site}.data"
        write_table(data, site, table)
        local.enrol(site, POLICY)
        words = ("--mapping", str(local.folder / "mapping.yaml"), "--home", str(local.site(site)))
        local.run("client", "records", "table", str(table), *words)
        if site == LIAR:
            lying = str(ROOT / "benchmarks" / "lying_hospital")
            os.environ["PYTHONPATH"] = os.pathsep.join([lying, before])
        local.start_site(site)
        os.environ["PYTHONPATH"] = before


def _plan(trial: Trial) -> dict:
    value = deepcopy(yaml.safe_load(PLAN.read_text()))
    value["study"] = trial.name
    value["cohort"] |= {
        "holdout_fraction": 0,
        "exclude_codes": [mark("benchmark", trial.split)],
    }
    value["privacy"] |= {"mode": "local", "evaluation_noise": None, "vote_noise": None}
    value["aggregation"] = {"rule": "sum", "robust": trial.robust}
    value["sites"] |= {"quorum": 3, "gathering_s": 60}
    return value


def _carry_out(local: LocalConsortium, trials: list[Trial]) -> Iterator[tuple[Trial, float]]:
    from fedtwin_protocol.content import read_content
    from fedtwin_protocol.study import plan_from_yaml
    from fedtwin_server.consortium import add_study
    from fedtwin_server.coordinator import Home
    from fedtwin_server.study_record import final_parameters

    home = Home(folder=local.server)
    keys = [Path(word) for word in local.keys if word != "--key"]
    for trial in trials:
        path = local.folder / f"{trial.name}.yaml"
        path.write_text(yaml.safe_dump(_plan(trial), sort_keys=False))
        add_study(home, path, keys, None, datetime.now(UTC))
    store = open_store(local)
    for trial in trials:
        wait_for(store, trial.name, 300)
        plan = plan_from_yaml(local.folder / f"{trial.name}.yaml")
        content = final_parameters(store, plan, home.blobs())
        parameters = read_content(content, home.blobs()).arrays["arrays"]
        yield trial, _auroc(local, plan, parameters)
    store.close()


def _auroc(local: LocalConsortium, plan: object, parameters: dict) -> float:
    """On the held-out patients of the honest hospitals, mean of the two."""
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.training.built_in import load_rows
    from fedtwin_twins.risk import auroc, predict_score

    everybody = plan.model_copy(
        update={"cohort": plan.cohort.model_copy(update={"exclude_codes": ()})}
    )
    found = []
    for site in HONEST:
        records = NodeHome(folder=local.site(site)).records
        rows = load_rows(everybody, records, datetime.now(UTC))
        trained = load_rows(plan, records, datetime.now(UTC)).subject_ids
        held_out = ~np.isin(rows.subject_ids, trained)
        scores = predict_score(parameters, rows.features[held_out])
        found.append(auroc(scores, rows.labels[held_out]))
    return fmean(found)
