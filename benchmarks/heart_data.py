"""The four UCI hospitals as tables with marks that say which re-splits hold a patient out.

FLamby's rows of a hospital are those complete in all columns but slope, ca and thal, in the file's
order; its split is scikit-learn's `train_test_split` with train_size=.66, test_size=.34 and
random_state=43 within a hospital, stratified by disease where both classes have more than two
patients (owkin/FLamby, flamby/datasets/fed_heart_disease/dataset.py).
"""

import argparse
from pathlib import Path

import numpy as np
import yaml
from sklearn.model_selection import train_test_split

SITES = ("cleveland", "hungarian", "switzerland", "va")
FLAMBY = 43
SPLITS = tuple(range(20))
ROOT = Path(__file__).resolve().parent.parent
MAPPING = ROOT / "cli" / "fedtwin" / "demo" / "mappings" / "heart-disease.yaml"
SLOPE, CA, THAL, DISEASE = 10, 11, 12, 13


def find_data(options: argparse.Namespace) -> Path | None:
    """The folder of the four files: the one named, or one of the usual places."""
    usual = (ROOT / "heart-disease", ROOT.parent / "shared" / "data" / "uci_heart")
    for folder in [options.heart_disease] if options.heart_disease else usual:
        if all((folder / f"processed.{site}.data").is_file() for site in SITES):
            return Path(folder)
    return None


def mark(rows: str, seed: int) -> str:
    """The code of a patient who is held out in a re-split of `benchmark` or `all` rows."""
    return f"BENCH//held-out-{rows}-{seed}"


def write_table(data: Path, site: str, target: Path) -> None:
    """A hospital's file with further columns, 1 where a re-split holds the patient out."""
    lines = (data / f"processed.{site}.data").read_text().split()
    cells = [line.split(",") for line in lines]
    disease = np.array([row[DISEASE] != "0" for row in cells])
    needed = [column for column in range(DISEASE) if column not in {SLOPE, CA, THAL}]
    complete = np.array([all(row[column] != "?" for column in needed) for row in cells])
    marks = {}
    for rows, chosen in (("benchmark", complete), ("all", np.ones(len(cells), bool))):
        for seed in (FLAMBY, *SPLITS):
            held_out = np.zeros(len(cells), int)
            held_out[np.flatnonzero(chosen)[_test_rows(disease[chosen], seed)]] = 1
            marks[mark(rows, seed)] = held_out
    columns = np.column_stack(list(marks.values()))
    text = "\n".join(
        f"{line},{','.join(map(str, extra))}" for line, extra in zip(lines, columns, strict=True)
    )
    target.write_text(text + "\n")


def write_mapping(target: Path) -> None:
    """The demo's mapping, with the marks."""
    value = yaml.safe_load(MAPPING.read_text())
    for rows in ("benchmark", "all"):
        for seed in (FLAMBY, *SPLITS):
            name = f"{rows}_{seed}"
            value["column_names"].append(name)
            value["columns"][name] = {"code": mark(rows, seed), "kind": "presence"}
    target.write_text(yaml.safe_dump(value, sort_keys=False))


def _test_rows(disease: np.ndarray, seed: int) -> np.ndarray:
    both = min(disease.sum(), (~disease).sum()) > 2
    _, test = train_test_split(
        np.arange(len(disease)),
        test_size=0.34,
        train_size=0.66,
        random_state=seed,
        shuffle=True,
        stratify=disease if both else None,
    )
    return test
