"""The hospital's policy: how it is read, and what it says to plans."""

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtwin_client.node.policy import Patterns, Policy, default_policy_text, judge, load_policy
from fedtwin_protocol.errors import PolicyError
from fedtwin_protocol.study import StudyPlan, plan_from_value


def plan(**changes) -> StudyPlan:
    """A small plan; `changes` replaces keys, with `__` for a key of a part."""
    value = {
        "study": "heart-disease-risk",
        "consortium": "demo",
        "title": "Coronary disease",
        "purpose": "To estimate the risk.",
        "cohort": {"index": {"codes": ["SNOMED//33367005"]}, "exclude_codes": ["ICD10CM//I21"]},
        "features": [
            {"name": "age", "kind": "age", "unit": "a", "center": 55, "scale": 10},
            {
                "name": "systolic",
                "kind": "number",
                "codes": ["LOINC//8480-6"],
                "unit": "mm[Hg]",
                "plausible": [40, 300],
                "center": 130,
                "scale": 20,
            },
        ],
        "endpoint": {
            "name": "disease",
            "kind": "event",
            "codes": ["ICD10CM//I25"],
            "horizon_days": 365,
        },
        "model": {},
        "training": {"rounds": 10, "learning_rate": 1},
        "privacy": {
            "mode": "local",
            "epsilon": 1,
            "delta": 1e-5,
            "clipping_norm": 1,
            "noise_multiplier": 13,
            "evaluation_noise": 20,
        },
        "sites": {"quorum": 3, "smallest_cohort": 30},
    }
    for key, change in changes.items():
        part, _, name = key.partition("__")
        if name:
            value[part] = {**value[part], name: change}
        else:
            value[part] = change
    return plan_from_value(value, "the test's plan")


def write(tmp_path, text):
    path = tmp_path / "policy.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_default_file_says_what_the_defaults_are(tmp_path):
    text = default_policy_text()
    assert load_policy(write(tmp_path, text)) == Policy()
    for key in Policy.model_fields:
        assert f"\n{key}:" in text, f"the default file does not show '{key}'"


def test_an_allowed_study_waits_for_a_person_unless_the_policy_accepts():
    assert judge(Policy(), plan(), 1.0).decision == "ask"
    verdict = judge(Policy(when_allowed="accept", smallest_cohort=50), plan(), 1.0)
    assert verdict.decision == "accept"
    assert "30 patients, this site takes part only with 50" in verdict.reasons[1]


REFUSALS = {
    "consortium": (Policy(consortium="cardio"), plan(), ["'demo'", "'cardio'"]),
    "question": (Policy(), plan(question="statistics"), ["'statistics'", "'risk'"]),
    "family": (
        Policy(model_families=("logistic_regression",)),
        plan(model={"family": "network", "hidden": [8]}),
        ["'network'", "'logistic_regression'"],
    ),
    "rounds": (Policy(rounds_largest=9), plan(), ["10 rounds", "at most 9"]),
    "epsilon": (Policy(epsilon_per_study=0.5), plan(), ["epsilon is 1", "at most 0.5"]),
    "delta": (Policy(delta_largest=1e-6), plan(), ["delta is 1e-05", "at most 1e-06"]),
    "mode": (Policy(), plan(privacy__mode="none"), ["'none'", "'local'"]),
    "count": (Policy(reports=("evaluation",)), plan(), ["how many patients", "'evaluation'"]),
    "evaluation": (Policy(reports=("cohort_count",)), plan(), ["held-out", "'cohort_count'"]),
    "feature code denied": (
        Policy(codes=Patterns(denied=("LOINC//8480*",))),
        plan(),
        ["'systolic'", "LOINC//8480-6", "denies 'LOINC//8480*'"],
    ),
    "feature code not allowed": (
        Policy(codes=Patterns(allowed=("SNOMED//*", "ICD10CM//*", "age"))),
        plan(),
        ["'systolic'", "admits 'SNOMED//*', 'ICD10CM//*', 'age'"],
    ),
    "age": (Policy(codes=Patterns(denied=("age",))), plan(), ["'age' reads age", "denies 'age'"]),
    "cohort code": (
        Policy(codes=Patterns(denied=("ICD10CM//I21",))),
        plan(),
        ["choice of patients reads ICD10CM//I21"],
    ),
    "endpoint": (
        Policy(endpoints=Patterns(allowed=("ICD10CM//E1?",))),
        plan(),
        ["endpoint 'disease'", "ICD10CM//I25", "'ICD10CM//E1?'"],
    ),
}


@pytest.mark.parametrize(("policy", "asked", "words"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_names_the_plans_value_and_the_policys(policy, asked, words):
    verdict = judge(policy, asked, 1.0)
    assert verdict.decision == "refuse"
    assert len(verdict.reasons) == 1, verdict.reasons
    for word in words:
        assert word in verdict.reasons[0]


def test_every_reason_is_told():
    policy = Policy(consortium="cardio", rounds_largest=1, epsilon_per_study=0.1)
    assert len(judge(policy, plan(), 1.0).reasons) == 3


def test_an_epsilon_that_does_not_add_up_is_refused_although_the_policy_would_allow_it():
    verdict = judge(Policy(), plan(), 1.49)
    assert verdict.decision == "refuse"
    assert (
        "states epsilon 1, but its own noise, rounds and reports make it 1.49"
        in (verdict.reasons[0])
    )
    assert judge(Policy(), plan(), 1.0009).decision == "ask"
    assert judge(Policy(), plan(), math.nan).decision == "refuse"
    assert judge(Policy(), plan(), math.inf).decision == "refuse"


def test_a_study_without_protection_is_noted_where_it_is_allowed():
    policy = Policy(modes=("local", "none"))
    verdict = judge(policy, plan(privacy__mode="none"), math.inf)
    assert verdict.decision == "ask"
    assert "not protected by noise" in verdict.reasons[1]
    assert policy.limits.unprotected
    assert not Policy().limits.unprotected


def test_an_expired_plan_is_refused():
    old = plan(expires="2026-01-01T00:00:00Z")
    assert judge(Policy(), old, 1.0, datetime(2026, 1, 2, tzinfo=UTC)).decision == "refuse"
    assert judge(Policy(), old, 1.0, datetime(2025, 12, 31, tzinfo=UTC)).decision == "ask"


def test_the_stricter_smallest_cohort_counts():
    assert Policy(smallest_cohort=10).smallest_cohort_for(plan()) == 30
    assert Policy(smallest_cohort=99).smallest_cohort_for(plan()) == 99


@given(epsilon=st.floats(0.01, 20), allowed=st.floats(0.01, 20), stated=st.floats(0.01, 20))
def test_no_study_above_the_limit_is_ever_let_through(epsilon, allowed, stated):
    verdict = judge(Policy(epsilon_per_study=allowed), plan(privacy__epsilon=stated), epsilon)
    if max(epsilon, stated) > allowed or epsilon > stated * 1.001:
        assert verdict.decision == "refuse"
    else:
        assert verdict.decision == "ask"


WRONG = {
    "unknown key": ("epsilon_per_studdy: 1", ["epsilon_per_studdy: unknown key", "delta_largest"]),
    "unknown key of a part": ("codes: {alowed: [a]}", ["codes.alowed", "allowed, denied"]),
    "wrong number": ("epsilon_per_study: -1", ["epsilon_per_study", "greater than 0", "-1"]),
    "no number": ("epsilon_per_study: much", ["epsilon_per_study", "number", "'much'"]),
    "unknown word": ("when_allowed: maybe", ["when_allowed", "'accept' or 'ask'", "'maybe'"]),
    "a key twice": ("epsilon_per_study: 1\nepsilon_per_study: 9", ["'epsilon_per_study' is given"]),
    "not finite": ("epsilon_lifetime: .inf", ["epsilon_lifetime", "finite"]),
    "a list": ("- a", ["holds no policy"]),
    "no YAML": ("a: [", ["is not YAML"]),
    "empty": ("", ["holds no policy"]),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_policy_names_file_key_and_what_was_expected(tmp_path, text, words):
    path = write(tmp_path, text)
    with pytest.raises(PolicyError) as refused:
        load_policy(path)
    for word in (*words, "policy.yaml"):
        assert word in str(refused.value)


def test_a_missing_policy_admits_nothing(tmp_path):
    with pytest.raises(PolicyError, match="no study is admitted without one"):
        load_policy(tmp_path / "policy.yaml")


def test_numbers_as_yaml_writes_them(tmp_path):
    path = write(tmp_path, "delta_largest: 1e-6\nepsilon_per_study: 2\n")
    assert load_policy(path).limits.delta_lifetime == 1e-6
