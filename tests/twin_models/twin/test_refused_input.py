"""What must be refused with field, value, unit, allowed range and remedy; all of it at once."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from fedtwin_twins.pharmacology.card_model import CardModel
from fedtwin_twins.pharmacology.library import load_card
from fedtwin_twins.twin.observation import Observation
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem, Refusal
from fedtwin_twins.twin.schedule import Dose, Schedule
from fedtwin_twins.twin.tabulate import Patient, Tables, tabulate

pytestmark = pytest.mark.case("E01")

VANCOMYCIN = CardModel(load_card("vancomycin_goti_2018"))
TACROLIMUS = CardModel(load_card("tacrolimus_woillard_2011"))
AMLODIPINE = CardModel(load_card("amlodipine_mukherjee_2018"))
IMATINIB = CardModel(load_card("imatinib_gotta_2014"))

DOSE = Dose(
    time=Quantity(0, "h"),
    amount=Quantity(1_000, "mg"),
    route="intravenous",
    duration=Quantity(1, "h"),
)
LEVEL = Observation(time=Quantity(12, "h"), observable="concentration", value=Quantity(12, "mg/L"))
COVARIATES = {
    "age": Quantity(60, "a"),
    "body_weight": Quantity(80, "kg"),
    "creatinine": Quantity(1.0, "mg/dL"),
    "female": "male",
    "dialysis": "none",
}
PATIENT = Patient(schedule=Schedule([DOSE]), observations=[LEVEL], covariates=COVARIATES)


def refused(patient: Patient, model: CardModel = VANCOMYCIN) -> Sequence[Problem]:
    with pytest.raises(Refusal) as caught:
        tabulate([patient], model.intake)
    return caught.value.problems


def only(patient: Patient, model: CardModel = VANCOMYCIN) -> Problem:
    problems = refused(patient, model)
    assert len(problems) == 1, [str(problem) for problem in problems]
    return problems[0]


def dosed(*doses: Dose) -> Patient:
    return replace(PATIENT, schedule=Schedule(doses), observations=[])


def observed(*levels: Observation) -> Patient:
    return replace(PATIENT, observations=levels)


def with_covariate(name: str, value: object) -> Patient:
    return replace(PATIENT, covariates={**COVARIATES, name: value})


def test_a_sound_patient_passes() -> None:
    tables: Tables = tabulate([PATIENT], VANCOMYCIN.intake)
    assert tables.batch.doses.amount.tolist() == [[1000.0]]
    assert tables.observed.value.tolist() == [[12.0]]
    assert tables.cautions == ((),)


def test_a_dose_off_by_a_thousand() -> None:
    problem = only(dosed(replace(DOSE, amount=Quantity(1_000, "ug"))))
    assert (problem.value, problem.unit) == ("1000", "ug")
    assert problem.allowed == "a single dose of 20000 to 5000000"
    assert problem.remedy == "is it mg?"
    assert only(dosed(replace(DOSE, amount=Quantity(1_000, "g")))).remedy == "is it mg?"


def test_a_dose_in_a_unit_of_another_kind() -> None:
    problem = only(dosed(replace(DOSE, amount=Quantity(1_000, "mL"))))
    assert problem.field == "doses at 0 h.amount"


@pytest.mark.parametrize("amount", [0.0, -5.0])
def test_a_dose_that_is_not_above_0(amount: float) -> None:
    problem = only(dosed(replace(DOSE, amount=Quantity(amount, "mg"))))
    assert problem.field == "doses[0].amount"
    assert (problem.value, problem.unit, problem.allowed) == (f"{amount:g}", "mg", "above 0")


def test_a_negative_duration_rate_and_interval() -> None:
    for change, name in (
        ({"duration": Quantity(-1, "h")}, "duration"),
        ({"duration": None, "rate": Quantity(0, "mg/h")}, "rate"),
        ({"interval": Quantity(0, "h"), "additional": 3}, "interval"),
    ):
        problem = only(dosed(replace(DOSE, **change)))
        assert problem.field == f"doses[0].{name}"


def test_additional_doses_or_a_steady_state_without_an_interval() -> None:
    for change in ({"additional": 3}, {"steady_state": True}):
        problem = only(dosed(replace(DOSE, **change)))
        assert problem.field == "doses[0].interval"
        assert problem.value == ""
        assert "needs the interval" in problem.remedy


def test_an_infusion_longer_than_the_interval_at_steady_state() -> None:
    long = replace(DOSE, duration=Quantity(13, "h"), interval=Quantity(12, "h"), steady_state=True)
    problem = only(dosed(long))
    assert (problem.field, problem.value, problem.unit) == ("doses at 0 h.duration", "13", "h")
    assert problem.allowed == "at most the interval of 12"


@pytest.mark.parametrize(("model", "name"), [(AMLODIPINE, "lag"), (IMATINIB, "duration")])
def test_a_lag_or_absorption_longer_than_the_interval_at_steady_state(
    model: CardModel, name: str
) -> None:
    dose = Dose(
        time=Quantity(0, "h"),
        amount=Quantity(10 if name == "lag" else 400, "mg"),
        route="oral",
        interval=Quantity(3, "h"),
        steady_state=True,
    )
    covariates = {"body_weight": Quantity(80, "kg"), "age": Quantity(50, "a"), "female": "male"}
    patient = Patient(schedule=Schedule([dose]), covariates=covariates)
    assert only(patient, model).field == f"doses at 0 h.{name}"


def test_an_unknown_route_names_the_known_ones() -> None:
    problem = only(dosed(replace(DOSE, route="oral")))
    assert (problem.value, problem.allowed) == ("oral", "intravenous")


def test_an_infusion_by_mouth() -> None:
    dose = replace(DOSE, amount=Quantity(3, "mg"), route="oral")
    covariates = {
        "haematocrit": Quantity(35, "%"),
        "cyp3a5_expresser": "nonexpresser",
        "immediate_release": "immediate_release",
    }
    patient = Patient(schedule=Schedule([dose]), covariates=covariates)
    assert only(patient, TACROLIMUS).field == "doses at 0 h.duration"


def test_a_level_before_the_first_dose() -> None:
    problem = only(observed(replace(LEVEL, time=Quantity(-1, "h"))))
    assert (problem.field, problem.value, problem.unit) == ("observations[0].time", "-1", "h")


def test_a_level_in_the_interval_before_a_steady_state_counts() -> None:
    """Half an hour before the 0 h dose that the patient has had every 12 h for long."""
    steady = replace(DOSE, interval=Quantity(12, "h"), steady_state=True)
    early = replace(LEVEL, time=Quantity(-0.5, "h"))
    patient = replace(observed(early), schedule=Schedule([steady]))
    tables = tabulate([patient], VANCOMYCIN.intake)
    assert tables.observed.time.tolist() == [[-0.5]]
    patient = replace(patient, observations=[replace(early, time=Quantity(-12.5, "h"))])
    assert only(patient).allowed == "at least -12"


def test_a_time_without_its_zone() -> None:
    naive = datetime(2026, 3, 1, 12, 0)
    problem = only(
        replace(observed(replace(LEVEL, time=naive)), origin=datetime(2026, 3, 1, tzinfo=UTC))
    )
    assert problem.field == "observations[0].time"
    assert "time zone" in problem.allowed
    assert only(replace(PATIENT, origin=naive)).field == "origin"


def test_times_with_zones_become_hours() -> None:
    berlin = timezone(timedelta(hours=1))
    patient = replace(
        observed(replace(LEVEL, time=datetime(2026, 3, 1, 13, 30, tzinfo=berlin))),
        origin=datetime(2026, 3, 1, tzinfo=UTC),
    )
    assert tabulate([patient], VANCOMYCIN.intake).observed.time.tolist() == [[12.5]]


def test_two_values_at_the_same_time() -> None:
    problem = only(observed(LEVEL, replace(LEVEL, value=Quantity(13, "mg/L"))))
    assert problem.field == "observations[1].value"
    assert "12 mg/L" in problem.remedy


def test_the_same_value_twice_is_counted_once_and_said() -> None:
    tables = tabulate([observed(LEVEL, LEVEL)], VANCOMYCIN.intake)
    assert tables.observed.present.tolist() == [[True]]
    assert [str(caution) for caution in tables.cautions[0]] == [
        "observations[1] is 12 at 12 h, a second time; counted once"
    ]


def test_a_missing_value_that_is_not_marked() -> None:
    problem = only(observed(replace(LEVEL, value=None)))
    assert (problem.field, problem.value) == ("observations[0].value", "")


def test_a_value_below_the_limit_that_is_not_marked() -> None:
    limit = Quantity(2, "mg/L")
    level = replace(LEVEL, value=Quantity(1_500, "ng/mL"), quantification_limit=limit)
    problem = only(observed(level))
    assert (problem.value, problem.unit) == ("1.5", "mg/L")
    tables = tabulate([observed(replace(level, below=True))], VANCOMYCIN.intake)
    assert tables.observed.below.tolist() == [[True]]
    assert tables.observed.value.tolist() == [[2.0]]


def test_a_mark_that_does_not_fit() -> None:
    assert "limit of the assay" in only(observed(replace(LEVEL, below=True))).remedy
    limit = Quantity(2, "mg/L")
    problem = only(observed(replace(LEVEL, below=True, quantification_limit=limit)))
    assert problem.value == "12"


def test_a_negative_level() -> None:
    assert only(observed(replace(LEVEL, value=Quantity(-1, "mg/L")))).allowed == "0 or more"


def test_an_observable_that_the_model_does_not_know() -> None:
    problem = only(observed(replace(LEVEL, observable="6301-6")))
    assert problem.allowed == "concentration (20578-1)"
    assert tabulate([observed(replace(LEVEL, observable="20578-1"))], VANCOMYCIN.intake)


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("creatinine", Quantity(88, "mg/dL"), "is it umol/L?"),
        ("body_weight", Quantity(0, "kg"), "check the value and its unit at the source"),
        ("body_weight", Quantity(700, "kg"), "is it g or [lb_av]?"),
    ],
)
def test_an_implausible_covariate(name: str, value: Quantity, remedy: str) -> None:
    problem = only(with_covariate(name, value))
    assert (problem.field, problem.remedy) == (name, remedy)
    assert (problem.value, problem.unit) == (f"{value.value:g}", value.unit)


def test_a_height_in_metres_called_centimetres() -> None:
    hughes = CardModel(load_card("vancomycin_hughes_2024"))
    patient = with_covariate("height", Quantity(1.75, "cm"))
    assert only(patient, hughes).remedy == "is it m?"


def test_a_haematocrit_as_a_fraction() -> None:
    covariates = {
        "haematocrit": Quantity(0.35, "%"),
        "cyp3a5_expresser": "expresser",
        "immediate_release": "immediate_release",
    }
    patient = Patient(covariates=covariates)
    assert only(patient, TACROLIMUS).remedy == "is it a fraction (unit 1)?"
    fraction = {**covariates, "haematocrit": Quantity(0.35, "1")}
    tables = tabulate([Patient(covariates=fraction)], TACROLIMUS.intake)
    assert tables.batch.traits.values["haematocrit"].item() == pytest.approx(35.0)


def test_outside_the_hard_domain_is_refused_and_outside_the_soft_one_told() -> None:
    problem = only(with_covariate("age", Quantity(12, "a")))
    assert (problem.field, problem.value, problem.unit) == ("age", "12", "a")
    assert problem.allowed == "18 to 110"
    tables = tabulate([with_covariate("age", Quantity(104, "a"))], VANCOMYCIN.intake)
    assert [caution.field for caution in tables.cautions[0]] == ["age"]
    assert tables.cautions[0][0].allowed == "18 to 101"


def test_a_derived_covariate_is_checked_and_may_be_given() -> None:
    metformin = CardModel(load_card("metformin_chae_2012"))
    covariates = {**COVARIATES, "creatinine": Quantity(5, "mg/dL")}
    problem = only(Patient(covariates=covariates), metformin)
    assert problem.field == "creatinine_clearance (from age, body_weight, creatinine, female)"
    given = {"creatinine_clearance": Quantity(40, "mL/min")}
    tables = tabulate([Patient(covariates=given)], metformin.intake)
    assert tables.batch.traits.values["creatinine_clearance"].tolist() == [[40.0]]


def test_a_missing_covariate_says_what_would_do_instead() -> None:
    metformin = CardModel(load_card("metformin_chae_2012"))
    problems = refused(Patient(covariates={"age": Quantity(50, "a"), "femal": "male"}), metformin)
    assert {problem.field for problem in problems} == {"body_weight", "creatinine", "female"}
    remedies = {problem.field: problem.remedy for problem in problems}
    assert remedies["female"] == "did you mean 'femal' by it?"
    assert "or creatinine_clearance" in remedies["creatinine"]


def test_a_default_is_taken_and_said() -> None:
    without = {name: value for name, value in COVARIATES.items() if name != "dialysis"}
    tables = tabulate([replace(PATIENT, covariates=without)], VANCOMYCIN.intake)
    assert "'none' was assumed" in str(tables.cautions[0][0])


def test_a_level_of_a_covariate_that_has_no_such_name() -> None:
    problem = only(with_covariate("female", "f"))
    assert (problem.value, problem.allowed) == ("f", "male or female")
    assert only(with_covariate("female", Quantity(0.5, "1"))).value == "0.5"


def test_alleles_beyond_two() -> None:
    warfarin = CardModel(load_card("warfarin_hamberg_2010"))
    covariates = {
        "age": Quantity(60, "a"),
        "cyp2c9_star2_alleles": "two",
        "cyp2c9_star3_alleles": "one",
        "vkorc1_1639a_alleles": "none",
    }
    problem = only(Patient(covariates=covariates), warfarin)
    assert problem.field.startswith("cyp2c9_star1_alleles")
    assert problem.value == "-1"


def test_all_problems_of_all_patients_at_once() -> None:
    first = replace(
        with_covariate("creatinine", Quantity(88, "mg/dL")),
        name="p1",
        schedule=Schedule([replace(DOSE, amount=Quantity(-1, "mg")), DOSE]),
    )
    second = replace(observed(replace(LEVEL, value=None)), name="p2")
    with pytest.raises(Refusal) as caught:
        tabulate([first, second], VANCOMYCIN.intake)
    assert [problem.field for problem in caught.value.problems] == [
        "p1: doses[0].amount",
        "p1: creatinine",
        "p2: observations[0].value",
    ]


def test_no_patients() -> None:
    with pytest.raises(Refusal, match="at least one"):
        tabulate([], VANCOMYCIN.intake)
