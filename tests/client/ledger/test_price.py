"""What plans cost a patient: at several hospitals, in secure sums, on samples, for every kind."""

import math
import subprocess
import sys
from dataclasses import asdict

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant, privacy_loss_distribution

from fedtwin_client.node.ledger_account import Books
from fedtwin_client.node.ledger_limits import BudgetLimits, check_reservation
from fedtwin_client.node.renyi import ORDERS
from fedtwin_client.node.study_desk import reservation_for
from fedtwin_client.training.accounting import Steps, deltas_of, epsilon_of, price
from fedtwin_protocol.charge_kinds import KINDS
from fedtwin_protocol.charges import LARGEST_SUM, full_batch_epsilon, planned_charges
from fedtwin_protocol.errors import BudgetError, PlanError
from fedtwin_protocol.privacy import gaussian_epsilon
from fedtwin_protocol.skellam import lost_delta
from fedtwin_protocol.study import StudyPlan, plan_from_value

GENEROUS = BudgetLimits(epsilon_per_study=100, epsilon_lifetime=1000, delta_lifetime=1e-5)


def plan(**changes) -> StudyPlan:
    """A plan of 4 rounds; `training__rounds=9` changes a field of a part."""
    value = {
        "study": "priced",
        "consortium": "demo",
        "title": "Priced",
        "purpose": "To be priced",
        "cohort": {"index": {"codes": ["A//index"]}},
        "features": [{"name": "age", "kind": "age"}, {"name": "sex", "kind": "sex"}],
        "endpoint": {"name": "e", "kind": "event", "codes": ["A//e"], "horizon_days": 9},
        "model": {"family": "logistic_regression"},
        "training": {"rounds": 4, "learning_rate": 1},
        "privacy": {
            "mode": "local",
            "epsilon": 50,
            "delta": 1e-5,
            "clipping_norm": 1,
            "noise_multiplier": 8.0,
            "cohort_count_noise": 20,
            "evaluation_noise": 5.0,
            "vote_noise": 12.0,
        },
        "sites": {"quorum": 3},
    }
    for name, change in changes.items():
        part, _, key = name.partition("__")
        value[part] = {**value.get(part, {}), key: change} if key else change
    return plan_from_value(value, "the test's plan")


def sampled(rate=0.1, **changes) -> StudyPlan:
    if changes.get("privacy__mode") == "secure":
        return plan(training__rounds=20, privacy__sampling_rate=rate, **changes)
    return plan(
        training={"mechanism": "local_steps", "rounds": 4, "local_steps": 5, "learning_rate": 1},
        aggregation={"rule": "mean"},
        privacy__sampling_rate=rate,
        **changes,
    )


@pytest.mark.parametrize("mode", ["local", "secure"])
@pytest.mark.parametrize("hospitals", [1, 2, 5])
def test_a_patient_of_several_hospitals_is_accounted_with_the_noise_shared_out(mode, hospitals):
    """All kinds, both populations; in `secure` the rounding of 3, 1 and 40 numbers is on top."""
    found = price(plan(privacy__mode=mode, privacy__hospitals_per_patient=hospitals), ORDERS)

    def part(sigma, numbers, times):
        rounding = 1 + math.sqrt(numbers) / 2**20 if mode == "secure" else 1.0
        return times * (hospitals * rounding / sigma) ** 2

    own = 4 * (hospitals / 12.0) ** 2  # votes leave by themselves, not in a sum
    training = math.sqrt(part(8.0, 3, 4) + part(20.0, 1, 1))
    held_out = math.sqrt(part(5.0, 40, 1) + own + part(20.0, 1, 1))
    for mine, mu in ((found.epsilon_training, training), (found.epsilon_held_out, held_out)):
        exact = gaussian_epsilon(mu, 1e-5)
        assert exact * (1 - 1e-9) <= mine <= exact * 1.01
    assert found.epsilon == max(found.epsilon_training, found.epsilon_held_out)
    assert {item.kind for item in found.mechanisms} == set(KINDS) - {"readiness"}


@pytest.mark.parametrize("mode", ["local", "secure"])
@pytest.mark.parametrize("rate", [1.0, 0.2])
@pytest.mark.parametrize("hospitals", [1, 3])
def test_the_ledger_recomputes_every_curve_and_takes_it(mode, rate, hospitals):
    settings = {"privacy__mode": mode, "privacy__hospitals_per_patient": hospitals}
    asked_for = sampled(rate, **settings) if rate < 1 else plan(**settings)
    asked = reservation_for(asked_for, asdict(price(asked_for, ORDERS)))
    check_reservation(Books(), asked, GENEROUS)
    for place, allotment in enumerate(asked.allotments):
        body = {**asdict(allotment.mechanism)}
        body["rdp"] = tuple(value * 0.99 for value in allotment.mechanism.rdp)
        wrong = type(allotment.mechanism)(**body)
        with pytest.raises(BudgetError, match="computed wrongly"):
            wrong.check()
        assert place < len(KINDS)


def test_the_default_is_two_hospitals():
    assert plan().privacy.hospitals_per_patient == 2
    twice = plan(privacy__hospitals_per_patient=2)
    assert price(plan(), ORDERS).epsilon == price(twice, ORDERS).epsilon


def test_a_coarse_scale_costs_more_and_a_too_coarse_one_is_refused_with_the_one_that_would_do():
    fine = price(plan(privacy__mode="secure"), ORDERS).epsilon
    with pytest.raises(PlanError, match=r"scale_bits 6 rounds .* (\d+) would do") as refused:
        price(plan(privacy__mode="secure", privacy__scale_bits=6), ORDERS)
    enough = int(str(refused.value).rpartition(" would do")[0].rpartition(" ")[2])
    with pytest.raises(PlanError, match="rounds the sums too coarsely"):
        price(plan(privacy__mode="secure", privacy__scale_bits=enough - 1), ORDERS)
    coarse = price(plan(privacy__mode="secure", privacy__scale_bits=enough), ORDERS).epsilon
    assert fine < coarse < 1.1 * fine


def test_skellam_noise_costs_a_part_of_delta():
    secure = plan(privacy__mode="secure", privacy__scale_bits=13)
    charges = planned_charges(secure)
    lost = sum(
        item.divergence * item.steps * item.charges
        for item in charges
        if item.population != "held_out"
    )
    mu = math.sqrt(sum(i.charges / i.sigma**2 for i in charges if i.population != "held_out"))
    found = full_batch_epsilon(charges, "training", 1e-5)
    assert 0 < lost_delta(lost, found) < 1e-6
    assert found > gaussian_epsilon(mu, 1e-5)
    assert found == pytest.approx(gaussian_epsilon(mu, 1e-5 - lost_delta(lost, found)), rel=1e-6)
    assert found <= price(secure, ORDERS).epsilon_training <= found * 1.01


def test_a_family_that_is_not_built_in_is_priced_as_the_largest_sum():
    own = {"family": "own", "initial_sha256": "0" * 64}
    charges = planned_charges(plan(privacy__mode="secure", model=own))
    assert {item.kind: item.numbers for item in charges}["train"] == LARGEST_SUM
    with pytest.raises(PlanError, match="not built in"):
        planned_charges(plan(privacy__mode="secure", model={"family": "own"}))
    assert planned_charges(plan(model=own))[1].sigma == 4.0


def truth(kind: str, sigma: float, rate: float, hospitals: int, steps: int, delta: float) -> float:
    """What a patient of `hospitals` sites really loses; each site draws a sample of its own.

    `local`: each site releases for itself. `secure`: one sum of a binomial number of parts.
    """
    if kind == "secure":
        parts = range(hospitals + 1)
        chances = [math.comb(hospitals, k) * rate**k * (1 - rate) ** (hospitals - k) for k in parts]
        step = privacy_loss_distribution.from_mixture_gaussian_mechanism(
            sigma, list(parts), chances, value_discretization_interval=1e-3
        )
        return float(step.self_compose(steps).get_epsilon_for_delta(delta))
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    event = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(sigma))
    accountant.compose(event, steps * hospitals)
    return float(accountant.get_epsilon(delta))


@pytest.mark.parametrize(
    ("sigma", "rate", "hospitals", "steps", "delta"),
    [(4.0, 0.1, 2, 30, 1e-6), (2.0, 0.02, 2, 1, 5e-3), (8.0, 0.9, 4, 9, 1e-6)],
)
@pytest.mark.parametrize("kind", ["local", "secure"])
def test_the_price_of_samples_at_several_hospitals_is_never_below_the_truth(
    kind, sigma, rate, hospitals, steps, delta
):
    taken = Steps(sigma=sigma / hospitals, sampling_rate=rate, steps=steps, hospitals=hospitals)
    shown = epsilon_of([taken], delta)
    assert shown >= truth(kind, sigma, rate, hospitals, steps, delta) - 1e-3
    together = Steps(sigma=sigma / hospitals, sampling_rate=rate, steps=steps)
    assert shown >= epsilon_of([together], delta)


def test_the_noise_divided_by_the_hospitals_alone_would_be_below_the_truth_for_one_step():
    """Why both bounds are computed: one step, a delta near the chance to be drawn at all."""
    together = Steps(sigma=0.5, sampling_rate=0.01, steps=1)
    true = truth("secure", 1.0, 0.01, 2, 1, 7e-3)
    assert epsilon_of([together], 7e-3) < true < 1
    both = Steps(sigma=0.5, sampling_rate=0.01, steps=1, hospitals=2)
    assert epsilon_of([both], 7e-3) >= true


@pytest.mark.parametrize("mode", ["local", "secure"])
def test_a_plan_without_sampling_is_priced_exactly_and_without_the_accountant(mode):
    """Loading it costs a second, in every worker of every study."""
    stated = plan(privacy__mode=mode, privacy__epsilon=90)
    script = (
        "import sys\n"
        "from fedtwin_client.training.accounting import price\n"
        "from fedtwin_protocol.study import plan_from_bytes\n"
        "found = price(plan_from_bytes(sys.stdin.buffer.read()), [2.0, 8.0])\n"
        "print(repr(found.epsilon_training), *({'scipy', 'dp_accounting'} & set(sys.modules)))\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], input=stated.to_bytes(), capture_output=True, check=True
    )
    assert float(said.stdout) == pytest.approx(
        full_batch_epsilon(planned_charges(stated), "training", 1e-5), rel=1e-12
    )


@pytest.mark.parametrize(("sigma", "steps", "delta"), [(0.7, 3, 1e-5), (40.0, 9, 1e-9)])
def test_the_exact_price_is_just_below_that_of_loss_distributions(sigma, steps, delta):
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(dp_accounting.GaussianDpEvent(sigma), steps)
    dear = float(accountant.get_epsilon(delta))
    taken = Steps(sigma=sigma, sampling_rate=1, steps=steps)
    exact = epsilon_of([taken], delta)
    assert dear * (1 - 1e-3) < exact <= dear
    assert deltas_of([taken], [exact])[0] == pytest.approx(delta, rel=1e-6)
