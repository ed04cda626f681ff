"""The study in plain words: nothing that matters is left out, and every figure is the plan's."""

import math
from pathlib import Path

import pytest

import fedtwin
from fedtwin_client.node.plain_words import as_text, describe, noised_numbers
from fedtwin_protocol.study import StudyPlan, plan_from_value, plan_from_yaml

PLANS = sorted((Path(fedtwin.__file__).parent / "demo" / "plans").glob("*.yaml"))


def plan(**changes) -> StudyPlan:
    value = {
        "study": "heart-disease-risk",
        "consortium": "demo",
        "title": "Coronary disease before the catheter",
        "purpose": "To estimate the risk.",
        "expires": "2027-05-01T00:00:00Z",
        "cohort": {
            "index": {"codes": ["SNOMED//33367005"], "which": "first"},
            "exclude_codes": ["ICD10CM//I21"],
        },
        "features": [
            {"name": "age", "kind": "age", "unit": "a"},
            {
                "name": "systolic",
                "kind": "number",
                "codes": ["LOINC//8480-6"],
                "unit": "mm[Hg]",
                "plausible": [40, 300],
                "window_days": 730,
                "center": 130,
                "missing": "flag",
            },
        ],
        "endpoint": {
            "name": "coronary disease",
            "kind": "event",
            "codes": ["ICD10CM//I25"],
            "horizon_days": 1825,
        },
        "model": {},
        "training": {"rounds": 7, "learning_rate": 1},
        "privacy": {
            "mode": "local",
            "epsilon": 1,
            "delta": 1e-5,
            "clipping_norm": 2,
            "noise_multiplier": 12,
            "cohort_count_noise": 21,
            "evaluation_noise": 22,
        },
        "sites": {"quorum": 3, "smallest_cohort": 33},
        "limits": ["Not for children."],
        **changes,
    }
    return plan_from_value(value, "the test's plan")


def text_of(**changes) -> str:
    return " ".join(as_text(describe(plan(**changes))).split())


@pytest.mark.parametrize(
    "sentence",
    [
        "Consortium 'demo' asks: Coronary disease before the catheter",
        "any event with ICD10CM I25 within 5 years after the index date",
        "the first record of SNOMED 33367005",
        "Not patients with, by then, ICD10CM I21",
        "25% of them are held out",
        "at least 33 such patients",
        "systolic LOINC 8480-6 mm[Hg] last, 2 years before 130 is assumed and marked",
        "age date of birth years patient left out",
        "Once: how many patients take part, blurred by random noise of standard deviation 21",
        "At most 7 times, once a round: 4 numbers",
        "noise of standard deviation 24 in each number",
        "a table of 40 counts of held-out patients",
        "standard deviation 22 patients",
        f"Epsilon 1: by a factor of {math.e:.3g}",
        "about 1 in 100,000",
        "for the hospitals that are members and the consortium's researchers",
        "The study ends by 01 May 2027",
        "Limits stated by the authors: Not for children.",
    ],
)
def test_the_officer_is_told(sentence):
    assert sentence in text_of()


def test_a_study_without_protection_is_said_loudly_and_no_factor_is_promised():
    privacy = {
        "mode": "none",
        "epsilon": 100,
        "delta": 1e-5,
        "clipping_norm": 1000,
        "noise_multiplier": 0,
        "cohort_count_noise": 0,
    }
    text = text_of(privacy=privacy)
    assert "NONE IS PROMISED" in text
    assert text.count("WITHOUT noise") == 2
    assert "by a factor of" not in text
    assert "No result of testing the model" in text


def test_local_steps_are_told_with_their_sampling():
    text = text_of(
        model={"family": "network", "hidden": [5]},
        training={"rounds": 3, "learning_rate": 1, "mechanism": "local_steps", "local_steps": 9},
        aggregation={"rule": "mean"},
        privacy={
            "mode": "local",
            "epsilon": 1,
            "delta": 1e-5,
            "clipping_norm": 1,
            "noise_multiplier": 4,
            "sampling_rate": 0.25,
        },
    )
    assert "26 numbers, the model after 9 steps of training here, each on a random 25.0%" in text
    assert "in each number in every step" in text


def test_what_stands_for_a_missing_value_is_told_by_kind():
    features = [
        {"name": "statin", "kind": "presence", "codes": ["RXNORM//1"], "window_days": 365},
        {
            "name": "pain",
            "kind": "category",
            "codes": ["UCI//cp"],
            "categories": ["a", "b"],
            "center": 0.25,
            "missing": "center",
        },
        {
            "name": "stays",
            "kind": "presence",
            "codes": ["LOCAL//stay"],
            "window_days": 365,
            "summary": "count",
        },
    ]
    text = text_of(features=features)
    assert "statin RXNORM 1 1 year before no record counts as no" in text
    assert "pain UCI cp last, any time before no category is assumed" in text
    assert "stays LOCAL stay how many, 1 year before no record counts as 0" in text


def test_a_threshold_is_told_with_its_unit():
    endpoint = {
        "name": "high HbA1c",
        "kind": "value_above",
        "codes": ["LOINC//4548-4"],
        "horizon_days": 30,
        "threshold": 6.5,
        "unit": "%",
    }
    assert "a value above 6.5 % of LOINC 4548-4 within 30 days" in text_of(endpoint=endpoint)


def test_the_count_of_numbers_is_that_of_the_parameters():
    parameters = pytest.importorskip("fedtwin_protocol.parameters")
    for changes in ({}, {"model": {"family": "network", "hidden": [6, 4]}}):
        study = plan(**changes)
        shapes = parameters.parameter_shapes(study).values()
        assert noised_numbers(study) == sum(math.prod(shape) for shape in shapes)


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_plan_of_the_demo_can_be_told(path):
    study = plan_from_yaml(path)
    sections = describe(study)
    assert len(sections) == 7
    assert len(sections[2].table) == len(study.features) + 1
    text = as_text(sections)
    assert all(feature.name in text for feature in study.features)


def test_lines_fit_the_width():
    lines = as_text(describe(plan()), width=60).splitlines()
    prose = [line for line in lines if not line.startswith("  ")]
    assert max(map(len, prose)) <= 60


def test_a_population_study_is_told_with_what_leaves_and_what_does_not():
    study = plan(
        privacy={
            "mode": "local",
            "epsilon": 1,
            "delta": 1e-5,
            "clipping_norm": 2,
            "noise_multiplier": 12,
        },
        question="population",
        population={"site_variance_ratio": 0.1},
        model={"family": "linear_mixed_model"},
        training={"mechanism": "moments", "rounds": 1, "learning_rate": 1},
        endpoint={
            "name": "dose",
            "kind": "value",
            "codes": ["LOCAL//dose"],
            "horizon_days": 30,
            "unit": "mg",
            "transform": "square_root",
            "center": 6,
        },
    )
    text = " ".join(as_text(describe(study)).split())
    assert "What is learned: the population's values of 'dose'" in text
    assert "It is learned as its square root." in text
    # 3 columns, an intercept and the outcome make 15 products, twice, beside how many there are.
    assert "31 numbers, sums over all patients of products of two of the items read" in text
    assert "and products of two such sums of this hospital" in text
    assert "by how much its patients differ from the population" in text
