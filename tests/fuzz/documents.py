"""Model cards, trial plans and tables of drugs under coverage-guided fuzzing; see images.py.

python documents.py NAME SECONDS FOLDER
"""

import sys
from collections.abc import Callable
from datetime import date
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import atheris
import yaml

with atheris.instrument_imports(include=["fedtwin_twins", "fedtwin_research", "yaml"]):
    from fedtwin_research.trials.reading import read_plan
    from fedtwin_research.twins.asking import Settings, question_of
    from fedtwin_research.twins.reading import read_text
    from fedtwin_twins.pharmacology.drugs import parse_drugs
    from fedtwin_twins.pharmacology.gene_effects import parse_gene_effects
    from fedtwin_twins.pharmacology.interactions import parse_interactions
    from fedtwin_twins.pharmacology.library import read_card
    from fedtwin_twins.pharmacology.recommendations import parse_recommendations
    from fedtwin_twins.pharmacology.tables import built_in_text

sys.path.insert(0, str(Path(__file__).parent))
from loop import Target, fuzz

CARDS = files("fedtwin_twins.pharmacology") / "cards"
PATIENTS = files("fedtwin_research.twins") / "examples"
TODAY = Settings(today=date(2026, 3, 1))
PLANS = files("fedtwin_research.trials") / "examples"
PARSERS: dict[str, Callable[[str, str], object]] = {
    "drugs": parse_drugs,
    "gene_effects": parse_gene_effects,
    "interactions": parse_interactions,
    "recommendations": parse_recommendations,
}


def shortest(folder: Any, number: int) -> dict[str, bytes]:
    """The shortest few files of YAML in a folder, by name."""
    found = {one.name: one.read_bytes() for one in folder.iterdir() if one.name.endswith(".yaml")}
    return dict(sorted(found.items(), key=lambda item: len(item[1]))[:number])


def beginning(name: str) -> bytes:
    """A table's head and its first rows."""
    lines = built_in_text(f"{name}.csv").splitlines(keepends=True)
    head = sum(1 for line in lines if line.startswith("#"))
    return "".join(lines[: head + 6]).encode()


SEEDS = {
    "trial-rows": [b"age,body_weight,amiodarone,name\n50,70,0,x\n60,80.5,1,y\n"],
    "card": list(shortest(CARDS, 3).values()),
    "patient": list(shortest(PATIENTS, 4).values()),
    "trial": list(shortest(PLANS, 3).values()),
    **{name.replace("_", "-"): [beginning(name)] for name in PARSERS},
}


def of_path(folder: Path, *, name: str, read: Callable[[Path], object]) -> Target:
    """Takes bytes as a file of a name."""
    path = folder / name

    def target(data: bytes) -> None:
        path.write_bytes(data)
        read(path)

    return target


def of_text(_: Path, *, parse: Callable[[str, str], object]) -> Target:
    """Takes bytes as a table's text."""
    return lambda data: parse(data.decode("utf-8", "replace"), "table.csv")


def of_rows(folder: Path) -> Target:
    """Takes bytes as the patients that a trial draws from."""
    plan = folder / "trial.yaml"
    value = yaml.safe_load((PLANS / "warfarin.yaml").read_bytes())
    value["what_if"] = []  # each would be checked again for every input
    population = value["population"]
    units = {one["name"]: one["unit"] for one in population.pop("covariates")}
    population["rows"] = {"file": "rows.csv", "units": units, "source": "a register"}
    plan.write_text(yaml.safe_dump(value))
    return of_path(folder, name="rows.csv", read=lambda _: read_plan(plan))


TARGETS: dict[str, Callable[[Path], Target]] = {
    "patient": lambda _: lambda data: question_of(read_text(data, "patient.yaml"), TODAY),
    "trial-rows": of_rows,
    "card": partial(of_path, name=next(iter(shortest(CARDS, 1))), read=read_card),
    "trial": partial(of_path, name="trial.yaml", read=read_plan),
    **{name.replace("_", "-"): partial(of_text, parse=parse) for name, parse in PARSERS.items()},
}

if __name__ == "__main__":
    fuzz(TARGETS, SEEDS)
