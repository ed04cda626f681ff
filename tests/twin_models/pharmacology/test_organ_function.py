"""Organs and size: each equation against its own numbers, in numbers and tensors; refusals."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedtwin_twins.pharmacology import body_size, kidney_function, liver_function
from fedtwin_twins.twin.refusals import Refusal

MAN = {"age_a": 55.0, "creatinine_mg_dl": 1.2, "female": False}
SIZE = {"weight_kg": 80.0, "height_cm": 175.0}
LIVER = {"bilirubin_mg_dl": 3.0, "inr": 1.8, "creatinine_mg_dl": 1.5}

# Worked out by hand from the papers' equations, term by term.
WORKED: list[tuple[Callable[..., Any], dict[str, Any], float]] = [
    (body_size.body_mass_index, SIZE, 80 / 1.75**2),
    (body_size.body_surface_area_mosteller, SIZE, math.sqrt(80 * 175 / 3600)),
    (body_size.body_surface_area_du_bois, {"weight_kg": 70.0, "height_cm": 170.0}, 1.8097),
    (body_size.ideal_weight, {"height_cm": 177.8, "female": False}, 73.0),
    (body_size.ideal_weight, {"height_cm": 162.56, "female": True}, 54.7),
    (body_size.adjusted_weight, {"weight_kg": 123.0, "height_cm": 177.8, "female": False}, 93.0),
    (body_size.adjusted_weight, {"weight_kg": 60.0, "height_cm": 177.8, "female": False}, 60.0),
    (body_size.fat_free_mass, {**SIZE, "female": False}, 9270 * 80 / (6680 + 216 * 26.122449)),
    (body_size.fat_free_mass, {**SIZE, "female": True}, 9270 * 80 / (8780 + 244 * 26.122449)),
    (
        body_size.normal_fat_mass,
        {"weight_kg": 80.0, "fat_free_kg": 60.0, "fat_share": 0.509},
        60 + 0.509 * 20,
    ),
    (body_size.postmenstrual_age, {"age_a": 1.0}, 92.1775),
    (
        body_size.maturation,
        {"postmenstrual_weeks": 45.7, "half_weeks": 45.7, "hill": 2.3},
        0.5,
    ),
    (
        kidney_function.cockcroft_gault,
        {**MAN, "weight_kg": 72.0, "weight": "actual"},
        85 / 1.2,
    ),
    (
        kidney_function.cockcroft_gault,
        {**MAN, "weight_kg": 123.0, "height_cm": 177.8, "weight": "ideal", "female": False},
        85 * 73 / (72 * 1.2),
    ),
    (
        kidney_function.cockcroft_gault,
        {**MAN, "weight_kg": 123.0, "height_cm": 177.8, "weight": "adjusted"},
        85 * 93 / (72 * 1.2),
    ),
    (
        kidney_function.cockcroft_gault,
        {
            **{"age_a": 70.0, "creatinine_mg_dl": 0.5, "female": True, "weight_kg": 50.0},
            **{"weight": "actual", "creatinine_floor_mg_dl": 1.0},
        },
        70 * 50 / 72 * 0.85,
    ),
    (
        kidney_function.ckd_epi_2021_creatinine_indexed,
        MAN,
        142 * (1.2 / 0.9) ** -1.2 * 0.9938**55,
    ),
    (
        kidney_function.ckd_epi_2021_creatinine_indexed,
        {"age_a": 40.0, "creatinine_mg_dl": 0.6, "female": True},
        142 * (0.6 / 0.7) ** -0.241 * 0.9938**40 * 1.012,
    ),
    (
        kidney_function.ckd_epi_2012_cystatin_c_indexed,
        {"age_a": 60.0, "cystatin_c_mg_l": 1.2, "female": True},
        133 * 1.5**-1.328 * 0.996**60 * 0.932,
    ),
    (
        kidney_function.ckd_epi_2021_both_indexed,
        {**MAN, "cystatin_c_mg_l": 0.7},
        135 * (1.2 / 0.9) ** -0.544 * (0.7 / 0.8) ** -0.323 * 0.9961**55,
    ),
    (
        kidney_function.mdrd_indexed,
        {"age_a": 60.0, "creatinine_mg_dl": 2.0, "female": True},
        175 * 2.0**-1.154 * 60**-0.203 * 0.742,
    ),
    (
        kidney_function.schwartz_bedside_indexed,
        {"age_a": 8.0, "height_cm": 125.0, "creatinine_mg_dl": 0.5},
        103.25,
    ),
    (
        kidney_function.de_indexed,
        {"indexed_ml_min": 60.0, "body_surface_area_m2": 2.076},
        72.0,
    ),
    (
        liver_function.meld,
        LIVER,
        round(10 * (0.957 * math.log(1.5) + 0.378 * math.log(3) + 1.12 * math.log(1.8) + 0.643)),
    ),
    (
        liver_function.meld,
        {**LIVER, "creatinine_mg_dl": 0.4, "inr": 0.9, "bilirubin_mg_dl": 0.5},
        6,
    ),
    (liver_function.meld, {**LIVER, "dialysis": True}, 30),
    # MELD 21: 21 + 1.32 x 7 - 0.033 x 21 x 7 = 25.389
    (liver_function.meld_na, {**LIVER, "sodium_mmol_l": 130.0}, 25),
    (liver_function.meld_na, {**LIVER, "sodium_mmol_l": 140.0}, 21),
    (
        liver_function.meld_3,
        {**LIVER, "sodium_mmol_l": 130.0, "albumin_g_dl": 2.8, "female": True},
        round(
            *[
                1.33
                + 4.56 * math.log(3)
                + 0.82 * 7
                - 0.24 * 7 * math.log(3)
                + 9.09 * math.log(1.8)
                + 11.14 * math.log(1.5)
                + 1.85 * 0.7
                - 1.83 * 0.7 * math.log(1.5)
                + 6
            ]
        ),
    ),
    (
        liver_function.albi,
        {"bilirubin_umol_l": 17.0, "albumin_g_l": 40.0},
        0.66 * math.log10(17) - 3.4,
    ),
    (
        liver_function.child_pugh_points,
        {
            **{"bilirubin_mg_dl": 2.5, "albumin_g_dl": 2.7, "inr": 1.5},
            **{"ascites": 1.0, "encephalopathy": 3.0},
        },
        2 + 3 + 1 + 2 + 3,
    ),
    (
        liver_function.child_pugh_points,
        {
            **{"bilirubin_mg_dl": 3.5, "albumin_g_dl": 4.0, "inr": 1.0},
            **{"ascites": 0.0, "encephalopathy": 0.0, "cholestatic": True},
        },
        5,
    ),
]
NAMES = [f"{function.__name__}-{place}" for place, (function, _, _) in enumerate(WORKED)]


@pytest.mark.parametrize(("function", "arguments", "expected"), WORKED, ids=NAMES)
def test_worked_values(
    function: Callable[..., Any], arguments: dict[str, Any], expected: float
) -> None:
    assert function(**arguments) == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize(("function", "arguments", "expected"), WORKED, ids=NAMES)
def test_tensors_give_what_numbers_give(
    function: Callable[..., Any], arguments: dict[str, Any], expected: float
) -> None:
    """One code for both; every argument that varies between patients may be a tensor."""
    fixed = {"weight", "creatinine_floor_mg_dl", "fat_share", "half_weeks", "hill", "cholestatic"}
    batched = {
        name: value if name in fixed else torch.tensor([value, value], dtype=torch.float64)
        for name, value in arguments.items()
    }
    found = function(**batched)
    assert found.shape == (2,)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx([function(**arguments)] * 2, rel=1e-12)


def test_men_and_women_in_one_batch() -> None:
    both = kidney_function.ckd_epi_2021_creatinine_indexed(
        age_a=torch.tensor([50.0, 50.0], dtype=torch.float64),
        creatinine_mg_dl=torch.tensor([0.8, 0.8], dtype=torch.float64),
        female=torch.tensor([True, False]),
    )
    alone = [
        kidney_function.ckd_epi_2021_creatinine_indexed(
            age_a=50.0, creatinine_mg_dl=0.8, female=woman
        )
        for woman in (True, False)
    ]
    assert isinstance(both, torch.Tensor)
    assert both.tolist() == pytest.approx(alone, rel=1e-12)


@given(st.floats(18, 90), st.floats(0.3, 8), st.floats(0.3, 6), st.booleans())
def test_worse_markers_never_mean_better_kidneys(
    age: float, creatinine: float, cystatin: float, female: bool
) -> None:
    who: dict[str, Any] = {"age_a": age, "female": female}
    more = 1.05
    pairs = [
        (
            kidney_function.ckd_epi_2021_creatinine_indexed,
            {"creatinine_mg_dl": creatinine},
        ),
        (kidney_function.ckd_epi_2012_cystatin_c_indexed, {"cystatin_c_mg_l": cystatin}),
        (
            kidney_function.ckd_epi_2021_both_indexed,
            {"creatinine_mg_dl": creatinine, "cystatin_c_mg_l": cystatin},
        ),
        (kidney_function.mdrd_indexed, {"creatinine_mg_dl": creatinine}),
    ]
    for function, markers in pairs:
        worse = {name: value * more for name, value in markers.items()}
        assert function(**who, **worse) < function(**who, **markers)
        older = {**who, "age_a": age + 1.0}
        assert function(**older, **markers) < function(**who, **markers)


@pytest.mark.parametrize(
    ("function", "arguments", "says"),
    [
        (
            kidney_function.ckd_epi_2021_creatinine_indexed,
            {**MAN, "creatinine_mg_dl": 88.0},
            r"creatinine_mg_dl is 88 mg/dL; expected 0.05 to 30 mg/dL; .*umol/L",
        ),
        (body_size.body_mass_index, {**SIZE, "height_cm": 1.75}, r"height_cm is 1.75 cm.*"),
        (body_size.body_mass_index, {**SIZE, "weight_kg": 700.0}, "weight_kg is 700 kg"),
        (body_size.body_mass_index, {**SIZE, "weight_kg": 0.0}, "weight_kg is 0 kg"),
        (body_size.body_mass_index, {**SIZE, "weight_kg": math.nan}, "weight_kg is nan kg"),
        (body_size.body_mass_index, {**SIZE, "weight_kg": math.inf}, "weight_kg is inf kg"),
        (
            kidney_function.ckd_epi_2021_creatinine_indexed,
            {**MAN, "age_a": 10.0},
            "for children use Schwartz",
        ),
        (
            kidney_function.schwartz_bedside_indexed,
            {"age_a": 40.0, "height_cm": 170.0, "creatinine_mg_dl": 1.0},
            "for adults use CKD-EPI",
        ),
        (
            kidney_function.cockcroft_gault,
            {**MAN, "weight_kg": 80.0, "weight": "ideal"},
            "height_cm is missing; expected a height cm; give the height",
        ),
        (
            kidney_function.cockcroft_gault,
            {**MAN, "weight_kg": 80.0, "weight": "lean"},
            "expected actual, ideal, adjusted",
        ),
        (kidney_function.mdrd_indexed, {**MAN, "female": None}, "female is None; expected yes or"),
        (kidney_function.mdrd_indexed, {**MAN, "female": math.nan}, "female is nan"),
        (body_size.ideal_weight, {"height_cm": 100.0, "female": True}, "at least 120"),
        (
            body_size.normal_fat_mass,
            {"weight_kg": 50.0, "fat_free_kg": 60.0, "fat_share": 0.5},
            "at most the weight",
        ),
        (body_size.postmenstrual_age, {"age_a": 1.0, "weeks_at_birth": 50.0}, "20 to 45"),
        (
            body_size.maturation,
            {"postmenstrual_weeks": 40.0, "half_weeks": 0.0, "hill": 2.0},
            "half_weeks is 0; expected above 0",
        ),
        (body_size.adjusted_weight, {**SIZE, "female": True, "share": 2.0}, "0 to 1"),
        (
            liver_function.albi,
            {"bilirubin_umol_l": 17.0, "albumin_g_l": 4.0},
            r"albumin_g_l is 4 g/L; expected 5 to 70 g/L; is it g/dL",
        ),
        (liver_function.meld, {**LIVER, "bilirubin_mg_dl": 171.0}, "is it umol/L"),
        (liver_function.meld_na, {**LIVER, "sodium_mmol_l": 13.0}, "sodium_mmol_l is 13 mmol/L"),
        (liver_function.child_pugh_class, {"points": 4.0}, "expected 5 to 15"),
    ],
)
def test_what_is_refused(
    function: Callable[..., Any], arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(Refusal, match=says):
        function(**arguments)


def test_all_problems_are_said_at_once_and_counted_in_a_batch() -> None:
    with pytest.raises(Refusal) as refused:
        body_size.body_mass_index(weight_kg=0.0, height_cm=1.75)
    assert [problem.field for problem in refused.value.problems] == ["weight_kg", "height_cm"]
    heights = torch.tensor([170.0, 1.75, 1.80, math.nan], dtype=torch.float64)
    with pytest.raises(Refusal, match=r"1.75 \(and 2 more of 4 patients\)"):
        body_size.body_mass_index(weight_kg=80.0, height_cm=heights)


def test_classes_of_scores() -> None:
    assert [liver_function.child_pugh_class(p) for p in (5, 6, 7, 9, 10, 15)] == list("AABBCC")
    assert [liver_function.albi_grade(s) for s in (-3.0, -2.6, -2.0, -1.39, -1.0)] == [
        1,
        1,
        2,
        2,
        3,
    ]


def test_every_equation_names_its_paper() -> None:
    for module in (body_size, kidney_function, liver_function):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not name.startswith("_"):
                said = inspect.getdoc(function) or ""
                own = name in {
                    "body_mass_index",
                    "chosen_weight",
                    "postmenstrual_age",
                    "de_indexed",
                }
                assert own or any(
                    mark in said for mark in ("doi", "Arch Intern", "as above", "1974")
                )
