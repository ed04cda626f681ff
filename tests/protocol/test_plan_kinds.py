"""Plans whose family, endpoint and numbers do not fit are refused, with what would do."""

from typing import Any

import pytest

from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.study import FAMILY_ENDPOINTS, StudyPlan, plan_from_value
from fedtwin_protocol.study_patients import Endpoint

SEQUENCE = {"vocabulary": [{"code": "LOCAL//a"}]}
EXTRA: dict[str, dict[str, Any]] = {
    "value_above": {"threshold": 3.0},
    "time_to_event": {"interval_days": [10, 30]},
}


def plan(kind: str, family: str, **changes: Any) -> StudyPlan:
    value: dict[str, Any] = {
        "study": "kinds",
        "consortium": "tests",
        "title": "A plan",
        "purpose": "To be refused",
        "cohort": {"index": {"codes": ["LOCAL//visit"]}},
        "features": [{"name": "sex", "kind": "sex"}],
        "endpoint": {"name": "asked", "kind": kind, "codes": ["LOCAL//e"], "horizon_days": 30}
        | EXTRA.get(kind, {}),
        "model": {"family": family, "hidden": [3] if family == "network" else []},
        "training": {"rounds": 3, "learning_rate": 0.5},
        "privacy": {
            "mode": "local",
            "epsilon": 1,
            "delta": 1e-5,
            "clipping_norm": 1.0,
            "noise_multiplier": 30.0,
        },
        "sites": {"quorum": 3},
    }
    if family in {"transformer", "recurrent"}:
        value["sequence"] = SEQUENCE
    if family == "linear_mixed_model":
        value |= {"question": "population", "population": {}}
        value["training"] = {"mechanism": "moments", "rounds": 1, "learning_rate": 1}
    for name, change in changes.items():
        part, _, key = name.partition("__")
        value[part] = {**value.get(part, {}), key: change} if key else change
    return plan_from_value(value, "plan.yaml")


KINDS = ("event", "value_above", "time_to_event", "value", "count")


@pytest.mark.parametrize("family", FAMILY_ENDPOINTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_family_learns_its_own_kinds_and_says_who_learns_the_others(
    kind: str, family: str
) -> None:
    if kind in FAMILY_ENDPOINTS[family]:
        assert plan(kind, family).endpoint.kind == kind
        return
    with pytest.raises(PlanError) as refused:
        plan(kind, family)
    text = str(refused.value)
    assert f"model family '{family}' learns an endpoint of kind" in text
    (mended,) = [line for line in text.splitlines() if "set model.family to" in line]
    named = mended.partition("set model.family to ")[2].partition(",")[0].split(" or ")
    assert named
    assert all(plan(kind, other) for other in named)


@pytest.mark.parametrize(
    ("kind", "family", "changes", "said"),
    [
        ("event", "logistic_regression", {"endpoint__center": 3.0}, "'center' and 'scale' belong"),
        ("count", "poisson_regression", {"endpoint__scale": 3.0}, "'center' and 'scale' belong"),
        ("value", "linear_regression", {"endpoint__most": 7}, "'most' belongs to endpoints of"),
        ("event", "logistic_regression", {"endpoint__most": 7}, "'most' belongs to endpoints of"),
        ("event", "logistic_regression", {"endpoint__threshold": 1}, "'threshold' belongs"),
        ("event", "logistic_regression", {"endpoint__interval_days": [30]}, "'interval_days' bel"),
        ("time_to_event", "discrete_hazard", {"endpoint__interval_days": [10]}, "rise and end at"),
        ("value", "linear_regression", {"endpoint__horizon_days": 0}, "horizon_days: .* 1"),
        ("value", "linear_regression", {"endpoint__scale": 0}, "endpoint.scale: .* 0"),
        ("value", "linear_regression", {"privacy__vote_noise": 9}, "leave evaluation_noise and"),
        ("count", "poisson_regression", {"privacy__evaluation_noise": 9}, "leave evaluation_noise"),
        ("value", "linear_regression", {"privacy__mode": "secure"}, "evaluation.unjudged to true"),
        ("count", "poisson_regression", {"sequence": SEQUENCE}, "reads no records: leave"),
        ("event", "transformer", {"sequence": None}, "needs the part 'sequence'"),
        ("event", "transformer", {"model__heads": 3}, "must divide its width"),
    ],
)
def test_what_does_not_belong_is_named(
    kind: str, family: str, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(PlanError, match=said):
        plan(kind, family, **changes)


def test_a_secure_study_of_a_value_is_possible() -> None:
    for kind, family in (("value", "linear_regression"), ("count", "poisson_regression")):
        made = plan(kind, family, privacy__mode="secure", evaluation={"unjudged": True})
        assert made.privacy.vote_noise is None


def test_bounds_are_said_in_the_endpoints_unit() -> None:
    def bounds(kind: str, **fields: Any) -> str:
        named = {"name": "asked", "codes": ("LOCAL//e",), "horizon_days": 30}
        return Endpoint(kind=kind, **named, **EXTRA.get(kind, {}), **fields).bounds_in_words

    assert bounds("value", center=130, scale=20, unit="mm[Hg]") == "30 to 230 mm[Hg]"
    assert bounds("count", most=12) == "0 to 12"
    assert [bounds(kind) for kind in KINDS[:3]] == ["", "", ""]
