"""What a twin answers to a file: numbers that fit together, a page, values for machines."""

import json
import re
from copy import deepcopy
from datetime import date
from typing import Any

import pytest
import yaml

from fedtwin_research.twins.answering import Answer, answer_to
from fedtwin_research.twins.asking import Settings, question_of
from fedtwin_research.twins.machine import machine_answer
from fedtwin_research.twins.page import twin_page
from fedtwin_research.twins.reading import read_text
from fedtwin_research.twins.sentences import refusal_lines, risk_lines, set_aside_lines
from fedtwin_twins.pharmacology.adverse_event_models import ADVERSE_EVENTS

VANCOMYCIN: dict[str, Any] = {
    "name": "P-<1>",
    "models": ["vancomycin_goti_2018"],
    "covariates": {"age": "62 a", "body_weight": "80 kg", "creatinine": "1.0 mg/dL"},
    "sex": "female",
    "doses": [
        {"time": "0 h", "amount": "1 g", "duration": "1 h", "interval": "12 h", "additional": 3}
    ],
    "levels": [
        {"time": "38 h", "value": "24.1 mg/L"},
        {"time": "47.5 h", "value": "12.3 mg/L"},
        {"time": "47.8 h", "below": True, "limit": "20 mg/L"},
    ],
    "goal": {"least_probability": 0.3},
    "limits": {"largest_dose": "1500 mg"},
    "current": {"amount": "1 g", "interval": "12 h", "duration": "1 h"},
    "candidates": {"doses": ["750 mg", "1 g", "2 g"], "intervals": ["12 h", "24 h"]},
    "what_if": [{"name": "none & nothing", "doses": []}],
    "forecast_until": "72 h",
    "baseline_risks": {"vancomycin_kidney_zasowski_2018": 0.1},
}


def answered(content: dict[str, Any], **settings: Any) -> Answer:
    read = read_text(yaml.safe_dump(content).encode(), "p.yaml")
    return answer_to(question_of(read, Settings(today=date(2026, 11, 28), **settings)))


@pytest.fixture(scope="module")
def answer() -> Answer:
    return answered(VANCOMYCIN)


def test_measurements_narrow_what_is_believed(answer: Answer) -> None:
    clearance = next(one for one in answer.parameters if one.name == "clearance")
    assert clearance.after[2] - clearance.after[1] < clearance.before[2] - clearance.before[1]
    assert answer.beliefs[0].effective_sample_size > 100
    assert 0.01 < answer.beliefs[0].misfit_p <= 1
    hours = answer.after.hours.tolist()
    assert hours[0] == 0.0
    assert hours[-1] == 72.0
    place = hours.index(38.0)
    after, before = answer.after.quantiles[place], answer.before.quantiles[place]
    assert after[4] - after[0] < before[4] - before[0]


def test_the_proposal_is_the_best_of_what_may_be_given(answer: Answer) -> None:
    assert answer.advised is not None
    best = answer.advised.proposal.assessment
    assert best.all_inside == pytest.approx(
        max(one.all_inside for one in answer.candidates), abs=0.01
    )
    found = best.attainments[0]
    assert found.below + found.inside + found.above == pytest.approx(1)
    assert found.limits.low == 400
    assert str(best.regimen.amount) != "2000 mg"
    aside = set_aside_lines(answer)
    assert any("at most 1500" in line and "2 set aside" in line for line in aside)


def test_a_risk_lies_between_those_of_the_study(answer: Answer) -> None:
    """p R_above + (1 - p) R_below, with Chavada's rates and Zasowski's ratio on the own rate."""
    regimen = str(answer.candidates[0].regimen)
    chavada, zasowski = answer.risks.by_regimen[regimen]
    rates = ADVERSE_EVENTS[chavada.name].rates
    low, high = rates["below"].value, rates["above"].value
    assert chavada.risk.risk == pytest.approx(low + chavada.above * (high - low))
    assert zasowski.risk.risk == pytest.approx(0.1 + zasowski.above * (0.35 - 0.1))
    assert chavada.above > zasowski.above  # 563 against 677 mg.h/L
    larger = max(answer.candidates, key=lambda one: one.regimen.daily("mg"))
    assert answer.risks.by_regimen[str(larger.regimen)][0].above >= chavada.above
    assert any("acute kidney injury" in line for line in risk_lines(answer))


def test_the_same_seed_gives_the_same_answer_and_another_seed_nearly(answer: Answer) -> None:
    again = machine_answer(answered(VANCOMYCIN))
    assert again == machine_answer(answer)
    other = answered(VANCOMYCIN, seed=2)
    mine, theirs = answer.after.quantiles[:, 2], other.after.quantiles[:, 2]
    assert float((mine - theirs).abs().max()) > 0
    assert theirs.tolist() == pytest.approx(mine.tolist(), rel=0.1, abs=0.5)


def test_machines_get_numbers_with_units(answer: Answer) -> None:
    text = json.dumps(machine_answer(answer), allow_nan=False)
    found = json.loads(text)
    assert found["format"] == "fedtwin-twin-answer/1"
    assert found["proposal"]["regimen"]["amount"]["unit"] == "g"
    assert found["proposal"]["signed"] is False
    assert found["forecast"]["unit"] == "mg/L"
    assert len(found["forecast"]["quantiles"]) == len(found["forecast"]["hours"])
    assert found["hangs_on"]["Seed"] == "1"
    assert found["refusal"] == []


def test_the_page_stands_alone_and_shows_everything(answer: Answer) -> None:
    page = twin_page(answer)
    assert "default-src 'none'" in page
    assert not re.search(r"<script|https?://|src=|url\(", page)
    assert "P-&lt;1&gt;" in page
    assert "none &amp; nothing" in page
    assert page.count("<svg") == 4  # course, proposed, what if, candidates
    assert page.count("<circle") == 6  # two levels in three courses
    assert page.count('fill="none" stroke="currentColor"/></svg>') == 0
    assert len(re.findall(r"<polygon points=\"[^\"]+\" fill=\"none\"", page)) == 3  # below
    for words in ("Seed", "Model card vancomycin_goti_2018", "open question 1", "Median (5 to"):
        assert words in page


def test_an_unreachable_goal_is_a_refusal_with_what_was_looked_at() -> None:
    content = deepcopy(VANCOMYCIN)
    content["goal"] = {"targets": [{"kind": "trough", "low": "200 mg/L", "high": "210 mg/L"}]}
    found = answered(content)
    assert found.advised is None
    assert found.candidates
    lines = refusal_lines(found)
    assert "probability of meeting the goal" in lines[0]
    assert any("set aside" in line for line in lines)
    assert "Nothing is proposed" in twin_page(found)
    assert machine_answer(found)["refusal"]


def test_a_contraindication_stands_before_every_search() -> None:
    content = {
        "models": ["fluorouracil_arshad_2020"],
        "covariates": {"body_weight": "70 kg", "height": "170 cm", "cisplatin": "without"},
        "sex": "female",
        "genes": {"DPYD": 0},
        "doses": [{"time": "0 h", "amount": "1 g", "duration": "24 h"}],
        "goal": {"targets": [{"kind": "area", "low": "1 mg.h/L"}]},
        "candidates": {"doses": ["1 g"], "intervals": ["24 h"], "durations": ["24 h"]},
        "start": "48 h",
        "forecast_until": "60 h",
    }
    found = answered(content)
    assert found.candidates == ()
    assert "avoid" in found.refusal[0].value
    assert "DPYD" in twin_page(found)


def test_several_models_share_the_belief_and_say_where_they_disagree() -> None:
    content = {
        **deepcopy(VANCOMYCIN),
        "models": ["vancomycin_goti_2018", "vancomycin_thomson_2009"],
    }
    del content["goal"]
    found = answered(content)
    assert [one.model for one in found.beliefs] == content["models"]
    assert sum(one.share for one in found.beliefs) == pytest.approx(1)
    assert found.advised is None
    assert found.refusal == ()
