"""Warfarin by the IWPC: the published cases, what is refused, and what is said beside a dose."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtwin_twins.pharmacology.warfarin_iwpc import (
    WarfarinPatients,
    clinical_dose,
    pharmacogenetic_dose,
)
from fedtwin_twins.twin.refusals import Refusal

CASE = Path(__file__).parents[3] / "shared" / "cases" / "pharmacology" / "W01_iwpc.json"


def patients(**changes: Any) -> WarfarinPatients:
    one: dict[str, Any] = {
        "age_years": [65],
        "height_cm": [170],
        "weight_kg": [70],
        "race": ["white"],
        "enzyme_inducer": [False],
        "amiodarone": [False],
        "vkorc1": ["GG"],
        "cyp2c9": ["*1/*1"],
    }
    return WarfarinPatients(**one | changes)


@pytest.mark.skipif(not CASE.exists(), reason="the shared cases are not here")
@pytest.mark.case("W01")
def test_published_cases() -> None:
    case = json.loads(CASE.read_text())
    rows = case["inputs"]["rows"]
    asked = WarfarinPatients(
        age_years=[row["age"] for row in rows],
        height_cm=[row["height_cm"] for row in rows],
        weight_kg=[row["weight_kg"] for row in rows],
        race=[row["race"] for row in rows],
        enzyme_inducer=[row["inducer"] for row in rows],
        amiodarone=[row["amiodarone"] for row in rows],
        vkorc1=[row["VKORC1"] for row in rows],
        cyp2c9=["*{}/*{}".format(*row["CYP2C9"]) for row in rows],
    )
    expected, allowed = case["expected"]["rows"], case["tolerance"]["abs"]
    genes, clinical = pharmacogenetic_dose(asked), clinical_dose(asked)
    for name, found in (
        ("pgx_mg_week", genes.mg_per_week),
        ("pgx_mg_day", genes.mg_per_day),
        ("clinical_mg_week", clinical.mg_per_week),
    ):
        assert found == pytest.approx([row[name] for row in expected], abs=allowed), name


def test_a_dose_by_hand() -> None:
    """5.6044 - .2614 * 6 + .0087 * 170 + .0128 * 70, squared; clinical from 4.0376."""
    assert pharmacogenetic_dose(patients()).mg_per_week == pytest.approx([6.411**2])
    root = 4.0376 - 0.2546 * 6 + 0.0118 * 170 + 0.0134 * 70
    assert clinical_dose(patients(vkorc1=[], cyp2c9=[])).mg_per_week == pytest.approx([root**2])


def test_a_tensor_is_as_good_as_a_list() -> None:
    torch = pytest.importorskip("torch")
    asked = patients(age_years=torch.tensor([65.0]), enzyme_inducer=torch.tensor([True]))
    assert pharmacogenetic_dose(asked).mg_per_week == pytest.approx([(6.411 + 1.1816) ** 2])


def test_an_unknown_genotype_has_its_own_term_and_a_caution() -> None:
    found = pharmacogenetic_dose(patients(vkorc1=["unknown"], cyp2c9=["unknown"]))
    assert found.mg_per_week == pytest.approx([(6.411 - 0.4854 - 0.2188) ** 2])
    assert sorted(one.field for one in found.cautions) == [
        "cyp2c9 of patient 0",
        "vkorc1 of patient 0",
    ]
    assert pharmacogenetic_dose(patients()).cautions == ()


def test_an_unusual_patient_gets_a_dose_and_a_caution() -> None:
    found = pharmacogenetic_dose(patients(weight_kg=[180]))
    assert np.isfinite(found.mg_per_week).all()
    (caution,) = found.cautions
    assert str(caution).startswith("weight_kg of patient 0 is 180 kg; expected 42 to 145 kg")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"age_years": [9]}, "age_years of patient 0 is 9 a; expected 18 to 110 a"),
        ({"age_years": [float("nan")]}, "age_years of patient 0 is missing"),
        ({"height_cm": [1.7]}, "height_cm of patient 0 is 1.7 cm; expected 120 to 230 cm"),
        ({"weight_kg": [154_000]}, "weight_kg of patient 0"),
        ({"race": ["Klingon"]}, "race of patient 0 is Klingon; expected white or asian or black"),
        ({"vkorc1": ["GA"]}, "vkorc1 of patient 0 is GA; expected GG or AG or AA or unknown"),
        ({"cyp2c9": ["*1/*5"]}, "no term for it"),
        ({"amiodarone": [0.5]}, "amiodarone of patient 0 is 0.5; expected yes"),
        ({"enzyme_inducer": [float("nan")]}, "enzyme_inducer of patient 0 is missing"),
        ({"cyp2c9": []}, "cyp2c9 is 0 values; expected 1, one for each patient"),
    ],
)
def test_what_no_dose_may_be_computed_from(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Refusal) as refused:
        pharmacogenetic_dose(patients(**changes))
    assert said in str(refused.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(Refusal) as refused:
        pharmacogenetic_dose(patients(age_years=[5], height_cm=[1], cyp2c9=["*9/*9"]))
    assert len(refused.value.problems) == 3


def test_a_sum_of_terms_below_0_has_no_dose() -> None:
    frail = patients(
        age_years=[109],
        height_cm=[121],
        weight_kg=[26],
        vkorc1=["AA"],
        cyp2c9=["*3/*3"],
        amiodarone=[True],
        race=["black"],
    )
    with pytest.raises(Refusal, match="no dose for so many reasons"):
        pharmacogenetic_dose(frail)
