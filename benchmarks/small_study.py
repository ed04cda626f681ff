"""A small study for the speed figures: four sites of 150 patients, 13 features, seeded.

The tables are read through the ordinary import, the plan is signed and judged as any other.
"""

import csv
from pathlib import Path

import numpy as np
import yaml

from fedtwin.demo.consortium import LocalConsortium

SITES = ("north", "east", "south", "west")
FEATURES = tuple(f"x{number:02}" for number in range(1, 14))
PATIENTS = 150
POLICY = (
    ("when_allowed", "accept"),
    ("epsilon_lifetime", "1000"),
    ("rounds_largest", "100000"),
    ("modes", "[local, none]"),
)
MAPPING = {
    "name": "small",
    "subject": {"row_number": True},
    "time": {"date": "2020-01-01"},
    "birth": {"age_column": "age"},
    "sex": {"column": "sex", "male": [1], "female": [0]},
    "events": [{"code": "BENCH//index"}],
    "columns": {name: {"code": f"BENCH//{name}", "unit": "1"} for name in FEATURES}
    | {"y": {"code": "BENCH//y", "unit": "1", "offset_days": 1}},
}


def plan(study: str, rounds: int) -> dict[str, object]:
    """The plan, as it would be written in YAML."""
    return {
        "study": study,
        "consortium": "demo",
        "title": "Speed",
        "purpose": "To be timed",
        "cohort": {"index": {"codes": ["BENCH//index"]}, "holdout_fraction": 0},
        "features": [
            {
                "name": name,
                "kind": "number",
                "codes": [f"BENCH//{name}"],
                "plausible": [-100, 100],
            }
            for name in FEATURES
        ],
        "endpoint": {
            "name": "y",
            "kind": "value_above",
            "codes": ["BENCH//y"],
            "threshold": 0.5,
            "horizon_days": 2,
        },
        "model": {"family": "logistic_regression", "l2": 0.03},
        "training": {"rounds": rounds, "learning_rate": 1},
        "privacy": {
            "mode": "local",
            "epsilon": 1,
            "delta": 1e-5,
            "clipping_norm": 1,
            "noise_multiplier": 4 * rounds**0.5,
            "cohort_count_noise": 20,
            "hospitals_per_patient": 1,
        },
        "sites": {"quorum": 4},
    }


def write_tables(folder: Path) -> Path:
    """Write the sites' tables and the mapping; returns the mapping's file."""
    truth = np.random.default_rng(0).normal(size=len(FEATURES))
    for number, site in enumerate(SITES):
        rng = np.random.default_rng(number + 1)
        x = rng.normal(size=(PATIENTS, len(FEATURES)))
        y = rng.random(PATIENTS) < 1 / (1 + np.exp(-x @ truth))
        with (folder / f"{site}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["age", "sex", *FEATURES, "y"])
            for row, outcome in zip(x, y, strict=True):
                writer.writerow([60, 1, *(f"{value:.6f}" for value in row), int(outcome)])
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(MAPPING))
    return path


def enrol_sites(consortium: LocalConsortium, address: str | None = None) -> None:
    """Enrol the four sites and read their tables; starts no node."""
    mapping = write_tables(consortium.folder)
    for site in SITES:
        consortium.enrol(site, list(POLICY))
        home = ("--home", str(consortium.site(site)))
        table = str(consortium.folder / f"{site}.csv")
        consortium.run("client", "records", "table", table, "--mapping", str(mapping), *home)
        if address is not None:
            settings = consortium.site(site) / "node.yaml"
            text = settings.read_text().replace(f"localhost:{consortium.port}", address)
            settings.write_text(text)


def add_study(consortium: LocalConsortium, value: dict[str, object]) -> str:
    """Sign and open a study; returns its name."""
    path = consortium.folder / f"{value['study']}.yaml"
    path.write_text(yaml.safe_dump(value))
    home = ("--home", str(consortium.server))
    consortium.run("server", "studies", "add", str(path), *home, *consortium.keys)
    return str(value["study"])
