"""A population's objective and estimates beside NONMEM's and nlmixr2's."""

import csv
import json

import pytest
import torch
from torch import Tensor

from fedtwin_twins.belief.likelihood import evidence_of
from fedtwin_twins.belief.mode import find_mode
from fedtwin_twins.belief.population import (
    PopulationModel,
    Typical,
    _Estimation,
    estimate,
    focei,
)
from fedtwin_twins.twin.batch import Batch
from fedtwin_twins.twin.refusals import Refusal
from fedtwin_twins.twin.residuals import ResidualError

from .models import CASES, F64, SHARED, SmallModel, batch_of, observed_of, one_compartment_oral

THEOPHYLLINE = SHARED / "data" / "pk_nlmixr2data" / "theo_sd.csv"


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")
@pytest.mark.case("P01")
def test_the_objective_of_wang_2007() -> None:
    """Case P01: NONMEM's FOCEI at fixed parameters, proportional error."""
    wanted = json.loads((CASES / "P01_focei_wang2007.json").read_text())
    data = wanted["inputs"]["data"]
    model = SmallModel(
        terms=lambda e: [(torch.ones_like(e[:, 0]), 0.5 * e[:, 0].exp())],
        omega=torch.tensor([[0.04]], dtype=F64),
        error=ResidualError(convention="proportional", proportional=0.1**0.5),
        effects=("elimination",),
    )
    asked = evidence_of(
        # The dose precedes the first measurement, which the model wants strictly earlier.
        model,
        batch_of(*[[(-1e-12, 10.0)]] * len(data)),
        observed_of(*data.values()),
    )
    found = float(focei(asked, find_mode(asked).effects).sum().detach())
    assert found == pytest.approx(
        wanted["expected"]["focei_objective"], abs=wanted["tolerance"]["abs"]
    )


def theophylline() -> tuple[PopulationModel, Batch, list[list[tuple[float, float]]]]:
    doses: dict[str, list[tuple[float, float]]] = {}
    levels: dict[str, list[tuple[float, float]]] = {}
    for row in csv.DictReader(THEOPHYLLINE.read_text().splitlines()):
        if float(row["AMT"]) > 0:
            doses.setdefault(row["ID"], []).append((float(row["TIME"]), float(row["AMT"])))
        else:
            levels.setdefault(row["ID"], []).append((float(row["TIME"]), float(row["DV"])))

    def predict(
        typical: Tensor, batch: Batch, effects: Tensor, times: Tensor, kinds: Tensor
    ) -> Tensor:
        absorption, clearance, volume = (typical * effects.exp()).unbind(dim=1)
        model = SmallModel(
            terms=lambda _: one_compartment_oral(clearance, volume, absorption),
            omega=torch.eye(3, dtype=F64),
            error=ResidualError(convention="additive", additive=1.0),
        )
        return model.predict(batch, effects, times, kinds)

    model = PopulationModel(
        predict=predict,
        typical=(
            Typical(name="absorption", start=1.0),
            Typical(name="clearance", start=3.0),
            Typical(name="volume", start=30.0),
        ),
        spreads={"absorption": 0.5, "clearance": 0.3, "volume": 0.3},
        errors=(ResidualError(convention="additive", additive=1.0),),
    )
    return model, batch_of(*doses.values()), list(levels.values())


@pytest.mark.skipif(not THEOPHYLLINE.exists(), reason="the shared data are not here")
@pytest.mark.case("P02")
def test_theophylline() -> None:
    """Case P02: nlmixr2's estimates with their standard errors, and one patient's effects."""
    wanted = json.loads((CASES / "P02_theophylline.json").read_text())
    expected, tolerance = wanted["expected"], wanted["tolerance"]
    model, batch, levels = theophylline()
    seen: list[float] = []
    fit = estimate(model, batch, observed_of(*levels), lambda _, value: seen.append(value))
    assert fit.converged
    assert fit.objective == pytest.approx(116.803, abs=0.01)  # the data set's reference estimates
    logs, errors = fit.searched[:3].tolist(), fit.searched_errors[:3].tolist()
    for place, name in enumerate(("tka", "tcl", "tv")):
        assert logs[place] == pytest.approx(expected[name], abs=tolerance["theta_abs"]), name
        assert errors[place] == pytest.approx(expected["SE"][name], rel=0.05), name
    assert float(fit.estimates[6]) == pytest.approx(expected["add_sd"], abs=tolerance["add_sd_abs"])
    first = dict(zip(("ka", "cl", "v"), fit.effects[0].tolist(), strict=True))
    assert first == pytest.approx(expected["subject1_eta"], abs=tolerance["eta_abs"])
    assert seen[-1] == fit.objective < seen[0]


@pytest.mark.skipif(not THEOPHYLLINE.exists(), reason="the shared data are not here")
def test_the_gradient_follows_the_modes() -> None:
    """A mode moves with the parameters: differences of the objective know it, too."""
    model, batch, levels = theophylline()
    search = _Estimation(model, batch, observed_of(*levels), None)
    _, gradient = search.with_gradient(model.start)
    for place, step in enumerate(1e-4 * torch.eye(model.size, dtype=F64)):
        ahead, behind = (
            search.with_gradient(model.start + step),
            search.with_gradient(model.start - step),
        )
        assert (ahead[0] - behind[0]) / 2e-4 == pytest.approx(float(gradient[place]), rel=1e-4)


def test_what_cannot_be_estimated_is_refused() -> None:
    model = PopulationModel(
        predict=lambda typical, batch, effects, times, kinds: times,
        typical=(Typical(name="clearance", start=0.0),),
        spreads={"clearance": -1.0},
        errors=(ResidualError(convention="additive", additive=1.0),),
    )
    observed = observed_of([(1.0, 2.0)], below=[[0]])
    with pytest.raises(Refusal, match="logarithm") as raised:
        estimate(model, batch_of([(0.0, 1.0)]), observed)
    assert [problem.field for problem in raised.value.problems] == [
        "clearance",
        "sd(clearance)",
        "observed.below",
    ]
