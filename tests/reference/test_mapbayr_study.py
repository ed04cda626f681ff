"""The validation study of mapbayr: NONMEM's most probable effects for 21 of its models.

Le Louedec F et al., CPT Pharmacometrics Syst Pharmacol 2021;10:1208, doi 10.1002/psp4.12689. Its
data and NONMEM's output have no licence that lets them lie here. `FEDTWIN_MAPBAYR_STUDY` may name a
folder with the study's `data` and, taken out of its archives, `phi/run*.phi`.
"""

import csv
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from fedtwin_twins.belief.likelihood import evidence_of
from fedtwin_twins.belief.mode import find_mode
from fedtwin_twins.pharmacology.card_model import CardModel
from fedtwin_twins.pharmacology.reading_cards import card_from
from fedtwin_twins.twin.covariates import CovariateRecord
from fedtwin_twins.twin.observation import Observation
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.schedule import Dose, Schedule
from fedtwin_twins.twin.tabulate import Patient, tabulate

from .published import hours
from .small_cards import relation, small_card

STUDY = os.environ.get("FEDTWIN_MAPBAYR_STUDY", "")
pytestmark = pytest.mark.skipif(not STUDY, reason="FEDTWIN_MAPBAYR_STUDY names no folder")

PATIENTS = 40
"""Of each model, and a quarter of them where equations are stepped; the study has up to 4,000."""
KINKED = 0.15
"""The share of patients with a sample at the end of their input, where modes lie on a kink."""

CLEARANCE, VOLUME, RATE = "clearance", "central_volume", "absorption_rate"
USUAL = (CLEARANCE, VOLUME, RATE)
ONE = {CLEARANCE: ("L/h", 4.0), VOLUME: ("L", 70.0), RATE: ("/h", 1.0)}
LARGEST, HALF = "largest_elimination", "half_saturation_concentration"
SATURABLE = {LARGEST: ("mg/h", 1e4), HALF: ("mg/L", 2500.0), VOLUME: ("L", 70.0), RATE: ("/h", 1.0)}
ORAL = {"name": "oral", "input": "first_order", "rate": RATE}
VEIN = {"name": "intravenous", "input": "direct"}
PROPORTIONAL = {"convention": "proportional", "proportional": math.sqrt(0.05)}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One model of the study.

    Attributes:
        effects: in NONMEM's order, with their variances.
        parameters: unit, typical value, and what else the card says.
        ways: routes of the card, in the order of the compartments that doses go into.
        better: patients for whom a mode with a lower objective than NONMEM's may be found.
    """

    effects: Mapping[str, float]
    parameters: Mapping[str, Any]
    disposition: str = "one_compartment"
    ways: Sequence[Mapping[str, Any]] = (ORAL, VEIN)
    error: Mapping[str, Any] = field(default_factory=lambda: PROPORTIONAL)
    covariates: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    effect: str = "none"
    better: bool = False


def equal(*names: str) -> dict[str, float]:
    return dict.fromkeys(names, 0.2)


def saturable(*effects: str) -> Run:
    linear = {CLEARANCE: ("L/h", 4.0)} if CLEARANCE in effects else {}
    return Run(
        effects=equal(*effects),
        parameters={**SATURABLE, **linear},
        disposition="one_compartment_saturable",
    )


def with_error(convention: str, **parts: float) -> Run:
    error = {"convention": convention, **{name: math.sqrt(one) for name, one in parts.items()}}
    return Run(effects=equal(*USUAL), parameters=ONE, error=error)


def spread(*variances: float) -> Run:
    return Run(effects=dict(zip(USUAL, variances, strict=True)), parameters=ONE, better=True)


TWO = Run(
    effects=equal(*USUAL, "peripheral_volume"),
    parameters={
        **ONE,
        "peripheral_volume": ("L", 50.0),
        "intercompartmental_clearance": ("L/h", 4.0),
    },
    disposition="two_compartments",
)
SIZED = Run(
    effects=equal(*USUAL),
    parameters={
        **ONE,
        CLEARANCE: (
            "L/h",
            4.0,
            [
                relation("power", "body_weight", reference=75.0, exponent=1.5),
                relation("fold", "female", factor=0.75),
            ],
        ),
    },
    covariates={"BW": ("body_weight", "kg"), "SEX": ("female", "1")},
)
METABOLITE = Run(
    effects=equal(*USUAL, "metabolite_clearance", "metabolite_volume"),
    parameters={
        **ONE,
        "metabolite_clearance": ("L/h", 2.5),
        "metabolite_volume": ("L", 60.0),
        "metabolite_fraction": ("1", 0.7),
    },
    effect="metabolite",
)
RUNS = {
    "001": Run(effects=equal(*USUAL), parameters=ONE),
    "002": Run(effects=equal(*USUAL), parameters=ONE),
    "003": Run(
        effects=equal(*USUAL, "lag_time"),
        parameters={**ONE, "lag_time": ("h", 1.0)},
        ways=({**ORAL, "lag": "lag_time"},),
        better=True,
    ),
    "004": Run(
        effects=equal(CLEARANCE, VOLUME, "release"),
        parameters={CLEARANCE: ("L/h", 4.0), VOLUME: ("L", 70.0), "release": ("h", 4.0)},
        ways=({"name": "oral", "input": "zero_order", "duration": "release"},) * 2,
        better=True,
    ),
    "005": Run(
        effects=equal(*USUAL, "release"),
        parameters={**ONE, "release": ("h", 1.0)},
        ways=({**ORAL, "duration": "release"},),
    ),
    "006": Run(
        effects=equal(*USUAL, "release"),
        parameters={
            **ONE,
            "release": ("h", 4.0),
            "first": ("1", 0.2),
            "rest": ("1", None, [], {"complement_of": "first"}),
        },
        ways=(
            {"name": "oral", "input": "parallel", "parts": ["tablet", "core"]},
            {**ORAL, "name": "tablet", "bioavailability": "first"},
            {
                "name": "core",
                "input": "zero_order",
                "duration": "release",
                "bioavailability": "rest",
            },
        ),
        better=True,
    ),
    "008": Run(
        effects=equal(*USUAL, "fraction"),
        parameters={**ONE, "fraction": ("1", 0.5, [], {"distribution": "logit_normal"})},
        ways=({**ORAL, "bioavailability": "fraction"},),
    ),
    "101": TWO,
    "102": TWO,
    "201": saturable(LARGEST, VOLUME, RATE, HALF),
    "204": saturable(CLEARANCE, VOLUME, RATE, HALF),
    "301": SIZED,
    "302": SIZED,
    "401": METABOLITE,
    "402": METABOLITE,
    "403": with_error("additive", additive=5000.0),
    "405": with_error("sum_of_variances", additive=5000.0, proportional=0.05),
    "407": with_error("on_logarithm", additive=0.05),
    "501": spread(0.4, 0.4, 0.4),
    "504": spread(1.0, 1.0, 1.0),
    "512": spread(2.0, 0.2, 2.0),
}


def twin_of(run: Run) -> CardModel:
    card = small_card(
        name="study",
        disposition=run.disposition,
        covariates=dict(run.covariates.values()),
        parameters={name: (one[0], one[1], one[2] if len(one) > 2 else [])
                    for name, one in run.parameters.items()},
        variances=run.effects,
        residual=run.error,
    )  # fmt: skip
    for one in card["parameters"]:
        one |= dict(*run.parameters[one["name"]][3:])
    ways = list({one["name"]: one for one in run.ways}.values())
    card["routes"] = [{**card["routes"][0], **one} for one in ways]
    card |= {"covariate_rule": "next_backward", "effect": run.effect}
    if run.effect != "none":
        more = {"name": "metabolite", "output": "metabolite_concentration"}
        card["observables"] = [*card["observables"], {**card["observables"][0], **more}]
    return CardModel(card_from(card, "card"))


def records(name: str, run: Run) -> dict[str, Patient]:
    most = PATIENTS // 4 if "saturable" in run.disposition else PATIENTS
    path = Path(STUDY) / "data" / f"data_to_fit{name}.csv"
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    for line in csv.DictReader(path.read_text().splitlines()):
        if line["ID"] in rows or len(rows) < most:
            rows[line["ID"]].append(line)
    whole = run.ways[0]["input"] == "parallel"
    found = {}
    for patient, lines in rows.items():
        doses = [
            _dose(line, run)
            for line in lines
            if line["evid"] == "1" and not (whole and line["cmt"] == "2")
        ]
        levels = [
            Observation(
                time=hours(float(line["time"])),
                observable="metabolite" if line["cmt"] == "3" else "concentration",
                value=Quantity(float(line["DV"]), "mg/L"),
            )
            for line in lines
            if line["evid"] == "0" and line["mdv"] == "0"
        ]
        known = {
            to: [
                CovariateRecord(
                    time=hours(float(line["time"])), value=Quantity(float(line[column]), unit)
                )
                # Of several records at one time, what lies before them follows the first.
                for line in {one["time"]: one for one in reversed(lines)}.values()
            ]
            for column, (to, unit) in run.covariates.items()
        }
        found[patient] = Patient(schedule=Schedule(doses), observations=levels, covariates=known)
    return found


def _dose(line: Mapping[str, str], run: Run) -> Dose:
    amount, rate = float(line["amt"]), float(line.get("rate", 0))
    more: dict[str, Any] = {}
    if rate > 0:
        more["duration"] = hours(amount / rate)
    if int(line["addl"]) > 0:
        more |= {"interval": hours(float(line["ii"])), "additional": int(line["addl"])}
    route = run.ways[0 if run.ways[0]["input"] == "parallel" else int(line["cmt"]) - 1]["name"]
    return Dose(time=hours(float(line["time"])), amount=Quantity(amount, "mg"), route=route, **more)


def effects_by_nonmem(name: str) -> dict[str, list[float]]:
    head, *lines = (Path(STUDY) / "phi" / f"run{name}.phi").read_text().splitlines()[1:]
    places = [place for place, word in enumerate(head.split()) if word.startswith("ETA(")]
    return {
        words[1]: [float(words[place]) for place in places]
        for words in (line.split() for line in lines)
    }


@pytest.mark.parametrize("name", RUNS)
def test_modes_are_those_of_nonmem(name: str) -> None:
    run = RUNS[name]
    twin, people, known = twin_of(run), records(name, run), effects_by_nonmem(name)
    tables = tabulate(list(people.values()), twin.intake)
    evidence = evidence_of(twin, tables.batch, tables.observed)
    mode = find_mode(evidence, starts=4 if run.better else 1)
    columns = [list(twin.effects).index(one) for one in run.effects]
    wanted = torch.tensor([known[one] for one in people], dtype=torch.float64)
    theirs = torch.zeros_like(wanted)
    theirs[:, columns] = wanted
    apart = (mode.effects - theirs).abs().amax(dim=1)
    # Where the two differ, ours must be the more probable one.
    assert bool((mode.objective <= evidence.objective(theirs) + 1e-6).all())
    other = int((apart > 1e-4).sum())
    assert other <= (KINKED * len(people) if run.better else 0), apart.topk(3)
