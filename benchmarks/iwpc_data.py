"""The IWPC's patients for the benchmarks: columns of `iwpc.yaml`, dose and site of complete cases.

A complete case reached a stable dose, and has dose, age, height, weight and both genotypes. A drug
that is not recorded counts as not taken, and a race that is not counts as mixed or unknown, as in
the consortium's own algorithms (N Engl J Med 2009;360:753, supplementary appendix).
"""

import argparse
import csv
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
INDUCERS = ("Carbamazepine (Tegretol)", "Phenytoin (Dilantin)", "Rifampin or Rifampicin")
RACES = {"White": "white", "Asian": "asian", "Black or African American": "black"}
GENOTYPES = ("*1/*1", "*1/*2", "*1/*3", "*2/*2", "*2/*3", "*3/*3")


@dataclass(frozen=True, kw_only=True, slots=True)
class Patients:
    """Complete cases.

    Attributes:
        columns: raw values by feature, in the features' units.
        dose: mg/week, (patients,).
        site: number of the project site, (patients,).
    """

    columns: dict[str, list]
    dose: np.ndarray
    site: np.ndarray


def find_data(options: argparse.Namespace) -> Path | None:
    """The consortium's table, if it is at hand."""
    beside = ROOT.parent / "shared" / "data" / "iwpc_warfarin" / "iwpc_shared.csv.gz"
    path = options.iwpc or beside
    return path if path.exists() else None


def read(path: Path) -> Patients:
    """The complete cases of the table, plain or gzipped."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="latin-1") as file:
        table = [{key.strip(): value for key, value in row.items()} for row in csv.DictReader(file)]
    rows = [_row(row) for row in table if _complete(row)]
    names = [name for name in rows[0] if name not in {"dose", "site"}]
    return Patients(
        columns={name: [row[name] for row in rows] for name in names},
        dose=np.array([row["dose"] for row in rows]),
        site=np.array([row["site"] for row in rows]),
    )


def _complete(row: dict[str, str]) -> bool:
    numbers = ("Therapeutic Dose of Warfarin", "Height (cm)", "Weight (kg)")
    genes = ("VKORC1 -1639 consensus", "CYP2C9 consensus")
    known = all(row[name] not in {"NA", ""} for name in (*numbers, *genes, "Age"))
    return known and row["Subject Reached Stable Dose of Warfarin"] == "1"


def _row(row: dict[str, str]) -> dict:
    cyp2c9 = row["CYP2C9 consensus"]
    return {
        "age": float(row["Age"][0]),
        "height": float(row["Height (cm)"]),
        "weight": float(row["Weight (kg)"]),
        "vkorc1": row["VKORC1 -1639 consensus"].replace("/", ""),
        "cyp2c9": cyp2c9 if cyp2c9 in GENOTYPES else "other",
        "race": RACES.get(row["Race (OMB)"], "mixed_or_unknown"),
        "enzyme_inducer": float(any(row[name] == "1" for name in INDUCERS)),
        "amiodarone": float(row["Amiodarone (Cordarone)"] == "1"),
        "dose": float(row["Therapeutic Dose of Warfarin"]),
        "site": int(row["Project Site"]),
    }
