"""Audits outside the hospitals: the mechanism written again is the product's, and attacks work."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedtwin.demo
from fedtwin_client.cohort.sequences import Sequences
from fedtwin_client.training.learner import make_learner, summing_learner
from fedtwin_client.training.noise import SeededNoise
from fedtwin_client.training.training_rows import TrainingRows
from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.content import make_content, read_content
from fedtwin_protocol.errors import ReleaseError
from fedtwin_protocol.parameters import flatten, initial_parameters, unflatten
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.study import StudyPlan, plan_from_yaml
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_research.audits.families import family_of
from fedtwin_research.audits.family import Family
from fedtwin_research.audits.pools import Pool, made_inputs, overfitting_pool
from fedtwin_research.audits.repeat import (
    epsilon_finding,
    hospitals_in_noise,
    inversion_cosines,
    membership_curves,
    one_run,
    repeat_audits,
)
from fedtwin_research.audits.shadows import learn_as_planned, learn_openly
from fedtwin_server.rules import MeanRule, SumRule
from fedtwin_twins.audits.membership import attack, most_found


def base() -> StudyPlan:
    """The heart study in mode `local` with three rounds at epsilon 1."""
    plan = plan_from_yaml(Path(fedtwin.demo.__file__).parent / "plans" / "heart-disease.yaml")
    value = plan.model_dump()
    value["training"] |= {"rounds": 3, "learning_rate": 1.0}
    value["privacy"] |= {
        "mode": "local",
        "clipping_norm": 1.0,
        "noise_multiplier": 6.58,
        "evaluation_noise": 3.8,
        "vote_noise": 8.0,
        "hospitals_per_patient": 1,
    }
    value["sites"] |= {"invited": tuple("abcdefg")}
    return StudyPlan.model_validate(value)


HEART = base()
KINDS = [
    ("logistic_regression", "gradient_sum"),
    ("logistic_regression", "local_steps"),
    ("logistic_regression", "mean_vector"),
    ("linear_regression", "gradient_sum"),
    ("linear_regression", "local_steps"),
    ("poisson_regression", "gradient_sum"),
    ("poisson_regression", "local_steps"),
    ("discrete_hazard", "gradient_sum"),
    ("discrete_hazard", "local_steps"),
    ("network", "gradient_sum"),
    ("network", "local_steps"),
]
ENDPOINTS: dict[str, dict[str, Any]] = {
    "linear_regression": {"kind": "value", "threshold": None},
    "poisson_regression": {"kind": "count", "threshold": None},
    "discrete_hazard": {
        "kind": "time_to_event",
        "threshold": None,
        "horizon_days": 300,
        "interval_days": (100, 200, 300),
    },
}
UNPROMISED = {"evaluation_noise": None, "vote_noise": None}


def plan(
    family: str = "logistic_regression", mechanism: str = "gradient_sum", **privacy: Any
) -> StudyPlan:
    local, once = mechanism == "local_steps", mechanism == "mean_vector"
    other = {} if family in {"logistic_regression", "network"} else UNPROMISED
    return StudyPlan.model_validate(
        HEART.model_dump()
        | {
            "endpoint": HEART.endpoint.model_dump() | ENDPOINTS.get(family, {}),
            "model": {"family": family, "hidden": [6] if family == "network" else [], "l2": 0.03},
            "training": {
                "mechanism": mechanism,
                "rounds": 1 if once else 4,
                "learning_rate": 0.7,
                "momentum": 0.0 if once or local else 0.6,
                "local_steps": 3 if local else 1,
            },
            "aggregation": {"rule": "mean" if local else "sum"},
            "privacy": HEART.privacy.model_dump() | other | privacy,
            "evaluation": {"unjudged": True},
        }
    )


def known(study: StudyPlan) -> Family:
    """The plan's family, which audits can learn."""
    family = family_of(study)
    assert family is not None
    return family


def rows_of(pool: Pool, mine: np.ndarray) -> TrainingRows:
    """Some patients of a pool as a site has them."""
    outcomes = pool.outcomes[mine]
    if outcomes.ndim == 1:
        return TrainingRows(features=pool.features[mine], outcomes=outcomes)
    return TrainingRows(
        features=pool.features[mine], outcomes=outcomes[:, 1], days=outcomes[:, 0].copy()
    )


def random_outcomes(study: StudyPlan, patients: int) -> np.ndarray:
    """Outcomes of the plan's kind, all over its range."""
    rng = np.random.default_rng(2)
    if study.endpoint.kind == "value":
        return rng.normal(size=patients) * 2
    if study.endpoint.kind == "count":
        return rng.poisson(2.0, patients).astype(float)
    coins = rng.random(patients) < 0.5
    if study.endpoint.kind != "time_to_event":
        return coins.astype(float)
    days = rng.integers(1, 7, patients) * 50.0  # on the edges of intervals, and between
    return np.stack([days, coins], axis=1)


def as_the_product_learns(
    study: StudyPlan, rows: TrainingRows, folder: Path, seed: int = 1
) -> np.ndarray:
    """Rounds by the site's learner and the coordinator's rule."""
    blobs, noise = BlobStore(folder), SeededNoise(seed)
    rule = (SumRule if study.training.summed else MeanRule)(study, blobs)
    learner, count = make_learner(study, rows), float(len(rows))
    start = Payload(arrays={"arrays": initial_parameters(study)})
    state = pb.RoundState(parameters=make_content(start, blobs))

    async def ask(kind: str, tasks: Mapping[str, pb.Content]) -> Mapping[str, pb.Answer]:
        given = read_content(tasks["a"], blobs).arrays["arrays"]
        arrays = learner.update(given, count, noise)
        metrics = {"metrics": {"num-examples": count}}
        content = make_content(Payload(arrays={"arrays": arrays}, metrics=metrics), blobs)
        return {"a": pb.Answer(content=content)}

    for number in range(1, study.training.rounds + 1):
        step = asyncio.run(rule.step(number, state, {"a": count}, ask))
        state = pb.RoundState(parameters=step.parameters, memory=step.memory)
    return flatten(read_content(state.parameters, blobs).arrays["arrays"])


@pytest.mark.parametrize(("family", "mechanism"), KINDS)
@pytest.mark.parametrize("clip", [0.5, 1e6])
def test_many_models_at_once_learn_as_the_product_does(
    family: str, mechanism: str, clip: float, tmp_path: Path
) -> None:
    study = plan(family, mechanism, mode="none", clipping_norm=clip)
    taken = np.random.default_rng(3).random((3, 60)) < 0.6
    pool = Pool(
        features=made_inputs(study, 60, seed=1), outcomes=random_outcomes(study, 60), taken=taken
    )
    found = learn_as_planned(study, known(study), pool, seed=4)
    for place, mine in enumerate(taken):
        expected = as_the_product_learns(study, rows_of(pool, mine), tmp_path / str(place))
        tolerance = 2e-4 if family == "network" else 1e-9  # single precision
        assert found[place] == pytest.approx(expected, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("family", ["linear_regression", "poisson_regression", "discrete_hazard"])
def test_who_is_not_finite_counts_as_nobody_here_and_at_the_sites(family: str) -> None:
    study = plan(family)
    features, outcomes = made_inputs(study, 30, seed=1), random_outcomes(study, 30)
    features[4], features[5, 0] = 1e200, 1e200  # so that the mean is beyond all numbers
    model = np.full((1, known(study).penalised.size), 0.3)
    everybody, clip = np.ones((1, 30), np.bool_), study.privacy.clipping_norm
    with np.errstate(all="ignore"):
        found = known(study).clipped_sums(model, features, outcomes, everybody, clip)
    assert np.isfinite(found).all()
    pool = Pool(features=features, outcomes=outcomes, taken=everybody)
    learner = summing_learner(study, rows_of(pool, everybody[0]))
    start = unflatten(model[0], initial_parameters(study))
    assert found[0] == pytest.approx(learner.exact(start, SeededNoise(1)), abs=1e-9)


@pytest.mark.parametrize(("family", "mechanism"), KINDS)
def test_noise_of_many_models_is_the_plans(family: str, mechanism: str) -> None:
    """Of nobody, a step is noise alone, divided by the smallest cohort."""
    study = plan(family, mechanism, cohort_count_noise=1e-6)
    training = study.training.model_copy(update={"rounds": 1, "local_steps": 1})
    study = study.model_copy(update={"training": training})
    pool = Pool(
        features=np.zeros((30, 13)),
        outcomes=random_outcomes(study, 30),
        taken=np.zeros((400, 30), np.bool_),
    )
    start = flatten(initial_parameters(study))
    learned = learn_as_planned(study, known(study), pool, seed=1)
    moved = (start - learned) / study.training.learning_rate
    decay = study.model.l2 * known(study).penalised * start
    expected = study.privacy.noise_multiplier * study.privacy.clipping_norm
    found = (moved - decay).std() * study.sites.smallest_cohort
    assert found == pytest.approx(expected, rel=0.05)


LEARNED = ["logistic_regression", "linear_regression", "poisson_regression", "discrete_hazard"]


@pytest.mark.parametrize("family", LEARNED)
def test_without_protection_members_are_found_and_with_it_they_are_not(family: str) -> None:
    study = HEART if family == "logistic_regression" else plan(family)
    private, unprotected = membership_curves(study, known(study), seed=1)
    assert unprotected.found_at() > 0.04
    assert unprotected.area > 0.68
    assert private.found_at() < most_found(1.0, 1e-5)
    assert private.area < 0.6


def test_members_of_the_products_own_models_are_found_only_without_protection(
    tmp_path: Path,
) -> None:
    """LiRA on what site and coordinator learn together, not on the mechanism written again."""
    small = overfitting_pool(HEART, 2)
    taken = small.taken[:256]
    family = known(HEART)
    found = {}
    for name, study in (
        ("epsilon 1", HEART),
        ("none", plan(mode="none", clipping_norm=1e6)),
    ):
        models = np.array(
            [
                as_the_product_learns(
                    study,
                    rows_of(small, mine),
                    tmp_path,
                    seed=place,
                )
                for place, mine in enumerate(taken)
            ]
        )
        scores = family.confidence(models, small.features, small.outcomes)
        found[name] = attack(scores, taken).found_at()
    assert found["epsilon 1"] < most_found(1.0, 1e-5)
    assert found["none"] > 1.5 * most_found(1.0, 1e-5)


@pytest.mark.parametrize("name", LEARNED)
def test_forgotten_noise_is_found_by_lira(name: str) -> None:
    study = HEART if name == "logistic_regression" else plan(name)
    pool, family = overfitting_pool(study, 1), known(study)
    for models, expected in (
        (learn_as_planned(study, family, pool, 4, noised=False), True),
        (learn_openly(study, family, pool), True),
        (learn_as_planned(study, family, pool, 4), False),
    ):
        scores = family.confidence(models, pool.features, pool.outcomes)
        found = attack(scores, pool.taken).found_at()
        assert (found > most_found(1.0, 1e-5)) == expected, found


@pytest.mark.parametrize(("family", "mechanism"), KINDS)
def test_records_are_read_off_bare_updates_and_not_off_noised_ones(
    family: str, mechanism: str
) -> None:
    study = plan(family, mechanism)
    shown, bare = inversion_cosines(study, known(study), seed=1)
    assert bare.mean() > 0.999
    assert abs(shown.mean()) < 0.3
    quiet = plan(family, mechanism, noise_multiplier=0.001)
    little, _ = inversion_cosines(quiet, known(quiet), seed=1)
    assert little.mean() > 0.9


def test_the_bound_of_one_run_is_below_the_stated_epsilon_and_rises_with_less_noise() -> None:
    honest, loud = one_run(HEART, 1), one_run(plan(noise_multiplier=0.3), 1)
    assert honest.passed
    assert honest.result < 1.0
    assert not loud.passed
    assert loud.result > 2.0


def test_canaries_at_two_hospitals_are_louder() -> None:
    one, two = plan(mode="secure"), plan(mode="secure", hospitals_per_patient=2)
    assert hospitals_in_noise(two) == 2 * hospitals_in_noise(one)
    assert not one_run(plan(mode="secure", hospitals_per_patient=20), 1).passed


def test_the_stated_epsilon_is_held_against_the_cost() -> None:
    assert epsilon_finding(HEART, 1.0).passed
    assert not epsilon_finding(HEART, 1.01).passed
    assert not epsilon_finding(HEART, float("inf")).passed


def test_a_plan_that_promises_nothing_is_held_to_nothing() -> None:
    findings = repeat_audits(plan(mode="none"), 1, lambda _: float("inf")).findings
    assert [one.name for one in findings] == ["membership", "inversion"]
    assert all(one.passed for one in findings)
    assert "nothing is promised" in findings[1].reading


RECORDS = {
    "vocabulary": [
        {"code": "LOINC//2345-7", "unit": "mg/dL", "plausible": [20, 600], "center": 100},
        {"code": "SNOMED//73211009"},
    ],
    "most_records": 5,
}


def over_records(family: str, **privacy: Any) -> StudyPlan:
    value = plan("network", **privacy).model_dump()
    value["model"] |= {"family": family, "width": 8, "heads": 2}
    return StudyPlan.model_validate(value | {"sequence": RECORDS})


def test_a_network_over_records_is_attacked_on_patients_with_one_record() -> None:
    study = over_records("network")
    family, inputs = known(study), made_inputs(study, 40, seed=1)
    assert inputs.shape == (40, 13 + 2 + 3)
    assert (inputs[:, 13:15].sum(axis=1) == 1).all()
    codes = inputs[:, 13:15].argmax(axis=1, keepdims=True).astype(np.int32) + 1
    empty = np.zeros((40, 4))
    rows = TrainingRows(
        features=inputs[:, :13],
        outcomes=random_outcomes(study, 40),
        sequences=Sequences(
            codes=np.concatenate([codes, empty.astype(np.int32)], axis=1),
            numbers=np.concatenate(
                [inputs[:, None, 15:], np.repeat(empty[:, :, None], 3, axis=2)], axis=1
            ).astype(np.float32),
        ),
    )
    start = initial_parameters(study)
    expected = summing_learner(study, rows).exact(start, SeededNoise(1))
    found = family.clipped_sums(
        flatten(start)[None], inputs, rows.outcomes, np.ones((1, 40), np.bool_), 1.0
    )
    assert found[0] == pytest.approx(expected, abs=2e-4)
    repeated = repeat_audits(study, 1, lambda _: 1.0)
    assert [one.name for one in repeated.findings] == [
        *("epsilon", "membership", "inversion", "one-run-bound"),
    ]


@pytest.mark.parametrize(("family", "named"), [("transformer", "a transformer"),
                                               ("recurrent", "a recurrent network")])  # fmt: skip
def test_what_is_not_repeated_of_models_over_records_is_said(family: str, named: str) -> None:
    repeated = repeat_audits(over_records(family), 1, lambda _: 1.0)
    assert [one.name for one in repeated.findings] == ["epsilon", "one-run-bound"]
    assert repeated.attacked is None
    said = repeated.not_repeated[0]
    assert said.startswith(f"membership and inversion of {named}: hundreds of them")
    assert "instead: the plan is priced" in said
    bare = repeat_audits(over_records(family, mode="none"), 1, lambda _: float("inf"))
    assert bare.findings == ()
    assert "instead: nothing, because the plan promises no privacy" in bare.not_repeated[0]


def test_a_network_over_very_many_codes_is_not_learned_hundreds_of_times() -> None:
    words = [{"code": f"TEST//{number}"} for number in range(2000)]
    study = StudyPlan.model_validate(
        over_records("network").model_dump() | {"sequence": {"vocabulary": words}}
    )
    repeated = repeat_audits(study, 1, lambda _: 1.0)
    assert "a network with 2016 inputs" in repeated.not_repeated[0]


def test_an_installed_family_cannot_be_learned_here() -> None:
    model = HEART.model.model_copy(update={"family": "their_own"})
    with pytest.raises(ReleaseError, match="their_own"):
        repeat_audits(HEART.model_copy(update={"model": model}), 1, lambda _: 1.0)
