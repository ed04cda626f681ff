"""Fed-TCGA-BRCA as tables of six hospitals, with marks that say which re-splits hold a patient out.

The hospitals are FLamby's regions (owkin/FLamby, flamby/datasets/fed_tcga_brca). A re-split holds
out a fifth of each hospital's patients, FLamby's share, alike among those who died and those who
did not where there are more than two of each (scikit-learn's `train_test_split`).

Eleven clinical columns are made of the benchmark's 39: age; stage as a number, and whether it is
another than the common groups; treatment, and whether that is unknown; nodes (three), metastasis
not assessed, an earlier cancer, lobular type. Every diagnosis is put on one day, and death or the
last contact as many days later as the table says.
"""

import argparse
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from sklearn.model_selection import train_test_split

ROOT = Path(__file__).resolve().parent.parent
SITES = ("northeast", "south", "west", "midwest", "europe", "canada")
# Columns and settings were chosen on re-splits 0 to 19; the figures are of others.
SPLITS = tuple(range(100, 120))
DIAGNOSIS = date(1990, 1, 1)
STAGES = {1.0: ("i", "ia"), 2.0: ("iia", "iib"), 3.0: ("iiia", "iiic")}
NODE = "ajcc_pathologic_n_"
MADE_OF = {
    "n0i": (f"{NODE}N0 (i-)",),
    "n1": (f"{NODE}N1", f"{NODE}N1a"),
    "n2": (f"{NODE}N2", f"{NODE}N2a"),
    "mx": ("ajcc_pathologic_m_MX",),
    "prior": ("prior_malignancy_yes",),
    "lobular": ("morphology_8520/3",),
}


def find_data(options: argparse.Namespace) -> Path | None:
    """The folder of brca.csv and train_test_split.csv: the one named, or one of the usual."""
    usual = (ROOT / "fed-tcga-brca", ROOT.parent / "shared" / "data" / "fed_tcga_brca")
    for folder in [options.fed_tcga_brca] if options.fed_tcga_brca else usual:
        if all((folder / name).is_file() for name in ("brca.csv", "train_test_split.csv")):
            return Path(folder)
    return None


def mark(seed: int) -> str:
    """The code of a patient who is held out in a re-split."""
    return f"BENCH//held-out-{seed}"


def write_tables(data: Path, folder: Path) -> None:
    """For each hospital `<site>.csv` and `<site>-follow-up.csv`, and the two mappings."""
    table = pd.read_csv(data / "brca.csv").drop_duplicates("pid")
    split = pd.read_csv(data / "train_test_split.csv")
    table = table.merge(split, on="pid")
    region = table.fold2.str[-1].astype(int)
    for number, site in enumerate(SITES):
        rows = table[region == number].reset_index(drop=True)
        _at_diagnosis(rows).to_csv(folder / f"{site}.csv", index=False)
        _afterwards(rows).to_csv(folder / f"{site}-follow-up.csv", index=False)
    for name, mapping in (("mapping", _mapping()), ("follow-up", _follow_up_mapping())):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(mapping, sort_keys=False))


def _at_diagnosis(rows: pd.DataFrame) -> pd.DataFrame:
    stage = pd.Series("", index=rows.index, dtype=object)
    for value, names in STAGES.items():
        stage[rows[[f"tumor_stage_stage {name}" for name in names]].sum(axis=1) > 0] = value
    found = pd.DataFrame({"pid": rows.pid, "age": rows.age_at_index, "stage": stage})
    found["other_stage"] = (stage == "").astype(int)
    unknown = rows["treatment_or_therapy_not reported"] > 0
    found["treated"] = rows["treatment_or_therapy_yes"].astype(object).where(~unknown, "")
    for name, columns in MADE_OF.items():
        found[name] = rows[list(columns)].max(axis=1).astype(int)
    for seed in SPLITS:
        found[f"held_out_{seed}"] = _held_out(rows.E.to_numpy(), seed)
    return found


def _held_out(events: np.ndarray, seed: int) -> np.ndarray:
    both = min((events > 0).sum(), (events == 0).sum()) > 2
    _, test = train_test_split(
        np.arange(len(events)), test_size=0.2, random_state=seed, stratify=events if both else None
    )
    held_out = np.zeros(len(events), int)
    held_out[test] = 1
    return held_out


def _afterwards(rows: pd.DataFrame) -> pd.DataFrame:
    days = [DIAGNOSIS + timedelta(days=int(day)) for day in rows["T"]]
    return pd.DataFrame({"pid": rows.pid, "day": days, "died": rows.E.astype(int)})


def _mapping() -> dict:
    flag = {"code": "BRCA//treated", "kind": "flag", "values": {0: False, 1: True}}
    marks = {f"held_out_{seed}": {"code": mark(seed), "kind": "presence"} for seed in SPLITS}
    return {
        "name": "brca-diagnosis",
        "format": "csv",
        "subject": {"column": "pid", "system": "brca"},
        "time": {"date": DIAGNOSIS},
        "birth": {"age_column": "age"},
        "events": [{"code": "BRCA//diagnosis"}],
        "columns": {
            "stage": {"code": "BRCA//stage", "unit": "1"},
            "other_stage": {"code": "BRCA//other-stage", "kind": "presence"},
            "treated": flag,
            **{name: {"code": f"BRCA//{name}", "kind": "presence"} for name in MADE_OF},
            **marks,
        },
    }


def _follow_up_mapping() -> dict:
    return {
        "name": "brca-follow-up",
        "format": "csv",
        "subject": {"column": "pid", "system": "brca"},
        "time": {"column": "day"},
        "events": [{"code": "BRCA//contact"}],
        "columns": {"died": {"code": "BRCA//death", "kind": "presence"}},
    }
