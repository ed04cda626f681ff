"""Adverse events by what studies found, asked for many patients at once."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedtwin_twins.trials.events import EVENTS, chance_of
from fedtwin_twins.trials.genotypes import Genotypes
from fedtwin_twins.twin.refusals import Refusal

from .made_up import plan
from .test_courses import ran

KIDNEY = "vancomycin_kidney_chavada_2017"


def test_kidney_injury_follows_the_first_days_area() -> None:
    start = {"amount": 12, "per": "weight"}
    doses = {"interval_h": 12, "step": 20, "lowest": 20, "highest": 8000}
    arms = [
        {"name": name, "label": name, "doses": doses, "start": start | {"amount": amount}}
        for name, amount in (("low", 12), ("high", 90))
    ]
    for arm, name in enumerate(("low", "high")):
        course, group = ran(plan(arms=arms, analysis={"control": "low"}), arm)
        end = torch.full((120, 1), 24.0, dtype=torch.float64)
        area = group.truth.model.exposure(course.batch, group.truth.effects, end)[:, 0].numpy()
        expected = np.where(area > 563, 8 / 20, 12 / 107)
        assert chance_of(KIDNEY, course, group) == pytest.approx(expected)
        assert (area > 563).mean() > 0.5 if name == "high" else (area > 563).mean() < 0.5


def test_statins_side_effects_follow_the_alleles() -> None:
    course, group = ran(plan("fixed", "gene"))
    event = "statin_side_effects_voora_2009"
    with pytest.raises(Refusal, match=r"add SLCO1B1 to population\.genes"):
        chance_of(event, course, group)
    types = Genotypes(
        gene="SLCO1B1",
        diplotypes=("*1/*1", "*1/*5", "*5/*5"),
        phenotypes=("", "", ""),
        scores=(0.0, 0.0, 0.0),
        index=np.arange(120) % 3,
    )
    known = replace(group, patients=replace(group.patients, genotypes={"SLCO1B1": types}))
    assert chance_of(event, course, known)[:3] == pytest.approx([0.19, 0.27, 0.50])
    risks = chance_of("simvastatin_myopathy_search_2008", course, known)[:3]
    odds = risks / (1 - risks)
    assert odds[1:] / odds[:-1] == pytest.approx(4.5)


def test_every_event_can_be_asked_for() -> None:
    assert KIDNEY in EVENTS
    assert all(model.rates for model in EVENTS.values())
