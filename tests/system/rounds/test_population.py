"""A population study in mode `secure`, from records over real processes to whoever reads it."""

import csv
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedtwin.demo.consortium import LocalConsortium

from .conftest import Hospitals

STUDY = "dose"
SHIFTS = {"aal": -0.9, "bergen": 0.0, "cork": 0.9}
PER_PRESSURE = 0.05
"""Of the root of the dose, by mmHg; at 130 mmHg the root is 6."""
PATIENTS = 260
POLICY = (
    ("questions", "[risk, population]"),
    ("epsilon_per_study", "10"),
    ("epsilon_lifetime", "30"),
    ("model_families", "[linear_mixed_model]"),
)
PLAN: dict[str, Any] = {
    "question": "population",
    "endpoint": {
        "name": "stable dose",
        "kind": "value",
        "codes": ["TEST//dose"],
        "unit": "mg",
        "horizon_days": 2,
        "transform": "square_root",
        "center": 6,
        "scale": 1.5,
    },
    "model": {"family": "linear_mixed_model"},
    "population": {
        "site_variance_ratio": 1.0,
        "intercept": {"mean": 1.0, "sd": 1.0},
        "coefficients": {"pressure": {"mean": 0.04, "sd": 0.03}},
    },
    "training": {"mechanism": "moments", "rounds": 1, "learning_rate": 1},
    "privacy__mode": "secure",
    "privacy__epsilon": 8.0,
    "privacy__noise_multiplier": 1.0,
    "privacy__clipping_norm": 8.0,
    "privacy__evaluation_noise": None,
    "sites__quorum": 3,
    "sites__deadline_s": 60,
    "sites__gathering_s": 1,
    "evaluation": {"unjudged": True},
}


class Clinics(Hospitals):
    """Hospitals whose doses follow the pressure, each with a shift of its own."""

    mapping = "\n".join(
        [
            "name: visits",
            "format: csv",
            'missing: [""]',
            "subject: {row_number: true}",
            "time: {date: 2020-07-01}",
            "birth: {age_column: age}",
            "sex: {column: sex, male: [m], female: [f]}",
            "events: [{code: TEST//visit}]",
            "columns:",
            '  pressure: {code: LOINC//8480-6, unit: "mm[Hg]"}',
            "  dose: {code: TEST//dose, unit: mg, offset_days: 1}",
        ]
    )

    @staticmethod
    def write_table(file: Path, patients: int, steep: float = 1.0) -> None:
        rng = random.Random(file.stem)
        lines = ["age,sex,pressure,dose"]
        for _ in range(patients):
            pressure = steep * rng.gauss(0, 18) + 130
            root = 6 + PER_PRESSURE * (pressure - 130) + SHIFTS[file.stem] + rng.gauss(0, 0.6)
            row = f"{rng.randint(40, 80)},{rng.choice('mf')},{pressure:.1f},{root**2:.2f}"
            lines.append(row)
        file.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def clinics(
    tmp_path_factory: pytest.TempPathFactory, wait_until: Callable[..., None]
) -> Iterator[Clinics]:
    """Three of them, with the study learned, released, and fetched by a researcher."""
    folder = tmp_path_factory.mktemp("clinics")
    with LocalConsortium(folder=folder / "consortium") as consortium:
        made = Clinics(consortium, wait_until)
        for name in SHIFTS:
            made.admit(name, PATIENTS, *POLICY)
        made.start(*SHIFTS)
        made.open(made.plan(STUDY, **PLAN))
        made.wait_end(STUDY, 120)
        assert made.state(STUDY) == "finished: ", made.journal(STUDY)
        home = ("--home", str(consortium.server))
        consortium.run("server", "release", STUDY, *home, *consortium.keys)
        paper, ada = str(consortium.folder / "ada.invitation"), str(consortium.folder / "ada")
        consortium.run("server", "invite", "ada", "--role", "researcher", *home, "--out", paper)
        consortium.run("research", "enrol", "--invitation", paper, "--home", ada)
        consortium.run("research", "fetch", STUDY, "--home", ada)
        yield made
        made.store.close()


def test_a_researcher_reads_the_population_with_its_errors(
    clinics: Clinics, tmp_path: Path
) -> None:
    out = tmp_path / "values.csv"
    said = clinics.consortium.run("research", "population", STUDY, "--out", str(out))
    assert "known before" in said
    with out.open() as file:
        values = {row["name"]: row for row in csv.DictReader(file)}
    slope, between = values["pressure"], values["variance between sites"]
    error = float(slope["standard_error"])
    assert 0 < error < 0.02
    assert abs(float(slope["value"]) - PER_PRESSURE) < 4 * error
    assert slope["unit"] == "sqrt(mg) per mm[Hg]"
    patients = values["variance between patients"]
    assert abs(float(patients["value"]) - 0.36) < 4 * float(patients["standard_error"])
    assert 0.1 < float(between["value"]) < 2.0


def test_a_dose_is_foretold_in_its_unit_with_an_interval(clinics: Clinics, tmp_path: Path) -> None:
    (tmp_path / "patients.csv").write_text("age,pressure\n60,130\n60,170\n")
    out = tmp_path / "doses.csv"
    words = (str(tmp_path / "patients.csv"), "--out", str(out))
    clinics.consortium.run("research", "predict", STUDY, *words)
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "value [mg]",
        "low end of nine in ten [mg]",
        "high end of nine in ten [mg]",
    ]
    low, middle, high = (
        [float(row[name]) for row in rows]
        for name in ("low end of nine in ten [mg]", "value [mg]", "high end of nine in ten [mg]")
    )
    assert middle == pytest.approx([36, 64], rel=0.25)
    assert all(a < b < c for a, b, c in zip(low, middle, high, strict=True))
    assert clinics.consortium.run("research", "verify", STUDY)


def test_a_hospital_finds_its_own_shift(clinics: Clinics) -> None:
    home = ("--home", str(clinics.consortium.site("aal")))
    found = json.loads(clinics.consortium.run("client", "report", STUDY, *home, "--json"))
    before, after, alone = (found[name] for name in ("before", "after", "no_model"))
    assert after["mean_absolute_error"] < 0.8 * before["mean_absolute_error"]
    assert after["mean_absolute_error"] < 0.8 * alone["mean_absolute_error"]
    shift = found["site_shift"]
    assert shift["mean"] == pytest.approx(SHIFTS["aal"], abs=0.5)
    assert 0 < shift["sd"] < 0.6  # of three hospitals nobody knows well where their middle is
    assert "this hospital's own shift" in clinics.consortium.run("client", "report", STUDY, *home)


def test_nothing_but_parts_of_two_sums_has_left(clinics: Clinics) -> None:
    starts = ("this hospital takes part", "step of a secure", "part of a secure")
    for name in SHIFTS:
        held = [item.held for item in clinics.left(name) if item.study == STUDY]
        assert all(text.startswith(starts) for text in held), held
        assert sum(text.startswith("part of a secure") for text in held) == 2
