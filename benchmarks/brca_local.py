"""Fed-TCGA-BRCA over real processes: a discrete-time hazard for every re-split.

One coordinator and six hospitals run throughout. Each study leaves out the patients that its split
holds out, by a code of their record; its model then orders all held-out patients of the six
hospitals together (pooled C-index). Without noise, the same plan runs in mode `none`, to its
optimum, with a larger penalty.

Baselines: Cox regression with a ridge penalty on the 39 columns in one place .760; local noise
without secure sums at epsilon 1, delta 1e-3 .7465 (both means of 20 re-splits).
"""

import argparse
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

import numpy as np
import yaml
from brca_data import ROOT, SITES, SPLITS, find_data, mark, write_tables
from figures import Figure
from processes import open_store, wait_for

from fedtwin.demo.consortium import LocalConsortium

PLAN = ROOT / "benchmarks" / "brca.yaml"
AT_ONCE = 4
POLICY = (
    ("when_allowed", "accept"),
    ("epsilon_lifetime", "1000"),
    ("modes", "[secure, local, none]"),
    ("model_families", "[discrete_hazard]"),
    ("delta_largest", "1.0e-3"),
)
WITHOUT_NOISE = {
    "training": {"rounds": 60},
    "model": {"l2": 0.02},
    "privacy": {"mode": "none", "clipping_norm": 1000.0},
}
GROUPS = {"brca-cindex": False, "brca-cindex-dp": True}


def measure(options: argparse.Namespace) -> list[Figure]:
    """Both figures; none where the data are not at hand."""
    data = find_data(options)
    if data is None:
        print("the breast cancer figures need brca.csv and its split: --fed-tcga-brca DIR")
        return []
    asked = {name: private for name, private in GROUPS.items() if name in options.wanted}
    found: dict[str, list[float]] = {name: [] for name in asked}
    with tempfile.TemporaryDirectory() as folder, LocalConsortium(folder=Path(folder)) as local:
        _open(local, data)
        for name, private in asked.items():
            for start in range(0, len(SPLITS), AT_ONCE):
                found[name] += _carry_out(local, SPLITS[start : start + AT_ONCE], private)
    return [
        Figure(
            id=name,
            value=round(fmean(values), 4),
            unit="pooled C-index",
            baseline=0.7465 if GROUPS[name] else 0.76,
            goal=0.755 if GROUPS[name] else 0.77,
            higher_is_better=True,
        )
        for name, values in found.items()
    ]


def _open(local: LocalConsortium, data: Path) -> None:
    local.open()
    write_tables(data, local.folder)
    for site in SITES:
        local.enrol(site, POLICY)
        for table, mapping in ((site, "mapping"), (f"{site}-follow-up", "follow-up")):
            words = ("--mapping", str(local.folder / f"{mapping}.yaml"))
            path = str(local.folder / f"{table}.csv")
            local.run("client", "records", "table", path, *words, "--home", str(local.site(site)))
        local.start_site(site)


def _plan(seed: int, private: bool) -> dict:
    value = deepcopy(yaml.safe_load(PLAN.read_text()))
    value["study"] = f"brca-{'private' if private else 'plain'}-{seed}"
    value["cohort"]["exclude_codes"] = [mark(seed)]
    if not private:
        for part, fields in WITHOUT_NOISE.items():
            value[part] |= fields
    return value


def _carry_out(local: LocalConsortium, seeds: tuple[int, ...], private: bool) -> Iterator[float]:
    from fedtwin_protocol.content import read_content
    from fedtwin_protocol.study import plan_from_yaml
    from fedtwin_server.consortium import add_study
    from fedtwin_server.coordinator import Home
    from fedtwin_server.study_record import final_parameters

    home = Home(folder=local.server)
    keys = [Path(word) for word in local.keys if word != "--key"]
    paths = []
    for seed in seeds:
        value = _plan(seed, private)
        paths.append(local.folder / f"{value['study']}.yaml")
        paths[-1].write_text(yaml.safe_dump(value, sort_keys=False))
        add_study(home, paths[-1], keys, None, datetime.now(UTC))
    store = open_store(local)
    for path in paths:
        plan = plan_from_yaml(path)
        wait_for(store, plan.study, 300)
        content = final_parameters(store, plan, home.blobs())
        yield _pooled(local, plan, read_content(content, home.blobs()).arrays["arrays"])
    store.close()


def _pooled(local: LocalConsortium, plan: object, parameters: dict) -> float:
    """C-index over the held-out patients of all hospitals together."""
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.training.built_in import load_rows
    from fedtwin_twins.families import scores_of
    from fedtwin_twins.survival import concordance

    everybody = plan.model_copy(
        update={"cohort": plan.cohort.model_copy(update={"exclude_codes": ()})}
    )
    parts = []
    for site in SITES:
        records = NodeHome(folder=local.site(site)).records
        rows = load_rows(everybody, records, datetime.now(UTC))
        trained = load_rows(plan, records, datetime.now(UTC)).subject_ids
        held_out = ~np.isin(rows.subject_ids, trained)
        scores = scores_of(plan.model.family, parameters, rows.features)
        parts.append(np.stack([scores, rows.days, rows.labels])[:, held_out])
    return concordance(*np.concatenate(parts, axis=1))
