"""Modes and objectives that other programs published: NONMEM, Monolix, mapbayr."""

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fedtwin_twins.belief.likelihood import Evidence, evidence_of
from fedtwin_twins.belief.mode import find_mode
from fedtwin_twins.belief.population import expected_information
from fedtwin_twins.twin.batch import Batch
from fedtwin_twins.twin.residuals import ResidualError

from .models import (
    CASES,
    F64,
    SmallModel,
    batch_of,
    observed_of,
    one_compartment_oral,
    run001,
    two_compartments,
)

published = pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")
DATA = os.environ.get("FEDTWIN_MAPBAYR_DATA", "")


def case(name: str) -> dict[str, Any]:
    (path,) = CASES.glob(f"{name}_*.json")
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def evidence(
    model: SmallModel, doses: Sequence[Any], levels: Sequence[Any], **options: Any
) -> Evidence:
    return evidence_of(model, batch_of(doses), observed_of(levels), **options)


def records(path: Path) -> dict[str, tuple[list[tuple[float, float]], list[tuple[float, float]]]]:
    """Doses and levels by patient, additional doses written out."""
    found: dict[str, tuple[list[tuple[float, float]], list[tuple[float, float]]]] = {}
    for row in csv.DictReader(path.read_text().splitlines()):
        doses, levels = found.setdefault(row["ID"], ([], []))
        if row["evid"] == "1":
            more = range(int(row["addl"]) + 1)
            doses += [(float(row["time"]) + k * float(row["ii"]), float(row["amt"])) for k in more]
        elif row["mdv"] == "0":
            levels.append((float(row["time"]), float(row["DV"])))
    return found


@published
@pytest.mark.skipif(not DATA, reason="FEDTWIN_MAPBAYR_DATA names no data_to_fit001.csv")
@pytest.mark.case("M01", "M02")
def test_nonmem_run001() -> None:
    given = records(Path(DATA))
    wanted = case("M01")
    people = [given[name] for name in wanted["expected"]["eta"]]
    asked = evidence_of(
        run001(),
        batch_of(*(doses for doses, _ in people)),
        observed_of(*(levels for _, levels in people)),
    )
    mode = find_mode(asked)
    eta = torch.tensor(list(wanted["expected"]["eta"].values()), dtype=F64)
    assert bool(mode.converged.all())
    assert (mode.effects - eta).abs().max() <= wanted["tolerance"]["eta_abs"]
    first = case("M02")
    point = torch.tensor(first["inputs"]["eta"], dtype=F64).expand(len(people), -1)
    value = float(asked.objective(point)[0])
    assert value == pytest.approx(first["expected"]["ofv"], abs=first["tolerance"]["abs"])


@published
@pytest.mark.case("M03")
def test_tobramycin_as_monolix_fits_it() -> None:
    """Case M03: elimination rate and volume vary, the distribution rates are fixed."""
    wanted = case("M03")
    given = wanted["inputs"]
    ke = 0.21 * (given["CLCR"] / 67.8) ** 0.89 * (given["WT"] / 66.4) ** -1.09
    typical = 19.8 * (given["WT"] / 66.4) ** 0.80

    def terms(effects: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
        volume = typical * effects[:, 1].exp()
        between = given["k12"] * volume
        return two_compartments(
            ke * effects[:, 0].exp() * volume, volume, between, between / given["k21"]
        )

    model = SmallModel(
        terms=terms,
        omega=torch.diag(torch.tensor(given["omega"], dtype=F64)),
        error=ResidualError(convention="proportional", proportional=0.198),
        effects=("elimination", "volume"),
    )
    dose = given["dose"]
    asked = evidence(model, [(dose["t"], dose["amt"], dose["dur"])], given["obs"])
    found = find_mode(asked).effects[0]
    expected = wanted["expected"]
    assert ke * float(found[0].exp()) == pytest.approx(expected["ke"], rel=1e-3)
    assert typical * float(found[1].exp()) == pytest.approx(expected["V"], rel=1e-2)
    assert found.tolist() == pytest.approx(expected["eta"], abs=2e-3)


@published
@pytest.mark.case("M04")
def test_vancomycin_as_monolix_fits_it() -> None:
    """Case M04: the deviations of the error add."""
    wanted = case("M04")
    given = wanted["inputs"]
    typical = torch.tensor(
        [4.5 * (given["CLCR"] / 120) ** 0.8, 58.4 * given["WT"] / 70, 38.4], dtype=F64
    )

    def terms(effects: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
        clearance, volume, second = (typical * effects.exp()).unbind(dim=1)
        return two_compartments(clearance, volume, torch.full_like(volume, 6.5), second)

    model = SmallModel(
        terms=terms,
        omega=torch.diag(torch.tensor(list(given["omega"].values()), dtype=F64)),
        error=ResidualError(convention="sum_of_deviations", additive=3.4, proportional=0.227),
    )
    found = find_mode(evidence(model, given["doses"], given["obs"])).effects[0]
    expected = [wanted["expected"][name] for name in ("CL", "V", "Vp")]
    assert (typical * found.exp()).tolist() == pytest.approx(expected, rel=1e-2)


@published
@pytest.mark.case("M08")
def test_a_lag_that_varies() -> None:
    """Case M08, as NONMEM fits it."""
    wanted = case("M08")
    given = wanted["inputs"]
    model = SmallModel(
        terms=lambda e: one_compartment_oral(
            4.0 * e[:, 0].exp(), 70.0 * e[:, 1].exp(), e[:, 2].exp()
        ),
        omega=0.2 * torch.eye(4, dtype=F64),
        error=run001().error,
        lag=lambda e: e[:, 3].exp(),
        effects=("clearance", "volume", "absorption", "lag"),
    )
    found = find_mode(evidence(model, [given["dose"]], given["obs"])).effects[0]
    assert found.tolist() == pytest.approx(wanted["expected"]["eta"], abs=1e-3)


@published
@pytest.mark.case("M06")
def test_covariates_that_change_between_records() -> None:
    """Case M06: the next record's weight and sex hold since the last (NOCB)."""
    wanted = case("M06")
    given = wanted["inputs"]
    weights = dict(map(tuple, given["BW_at"]))
    sexes = dict(map(tuple, given["SEX_at"]))
    start, amount, duration = given["dose"]

    def predict(batch: Batch, effects: Tensor, times: Tensor, kinds: Tensor) -> Tensor:
        """By pieces: at the end of each, what is left of the last and of what came in."""
        volume = 70.0 * effects[:, 1].exp()
        left, now, found = torch.zeros_like(volume), start, []
        for time in times[0].tolist():
            clearance = 4.0 * (weights[time] / 75.0) ** 1.5 * 0.75 ** sexes[time]
            rate = clearance * effects[:, 0].exp() / volume
            flowing = max(0.0, min(time, start + duration) - now)
            after = time - now - flowing
            inflow = amount / duration * (1.0 - (-rate * flowing).exp()) / rate
            left = (left * (-rate * flowing).exp() + inflow) * (-rate * after).exp()
            now = time
            found.append(left / volume)
        return torch.stack(found, dim=1)

    asked = Evidence(
        predict=predict,
        covariance=given["omega"] * torch.eye(2, dtype=F64),
        errors=(ResidualError(convention="proportional", proportional=0.05**0.5),),
        batch=batch_of([(start, amount, duration)]),
        observed=observed_of(given["obs"]),
    )
    clearance, volume = find_mode(asked).effects[0].tolist()
    assert clearance == pytest.approx(wanted["expected"]["eta_CL"], rel=1e-3)
    assert volume == pytest.approx(wanted["expected"]["eta_V"], rel=1e-2)


def test_a_value_below_the_limit_of_quantification() -> None:
    """Method M3, against NONMEM by way of mapbayr's tests/testthat/test-blq.R @080fb292.

    The same four levels, the last of them first taken as under 1, then as a value of 1.
    """

    def terms(effects: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
        volume = 2.0 * effects[:, 1].exp()
        other = torch.ones_like(volume)
        return two_compartments(0.2 * effects[:, 0].exp(), volume, 0.1 * other, 0.5 * other)

    model = SmallModel(
        terms=terms,
        omega=torch.diag(torch.tensor([0.05, 0.02], dtype=F64)),
        error=ResidualError(
            convention="sum_of_variances", additive=0.5**0.5, proportional=0.1**0.5
        ),
        effects=("clearance", "volume"),
    )
    dose, levels = [(0.0, 100.0, 100.0 / 1200.0)], [(1, 75.0), (6, 25.0), (24, 7.0), (48, 1.0)]
    asked = evidence_of(model, batch_of(dose, dose), observed_of(levels, levels, below=([3], [])))
    mode = find_mode(asked)
    assert mode.effects[0].tolist() == pytest.approx([-4.27451e-02, -1.22636e-01], abs=1e-4)
    assert mode.effects[1].tolist() == pytest.approx([-7.06898e-02, -1.13914e-01], abs=1e-4)


@pytest.mark.skipif(not DATA, reason="FEDTWIN_MAPBAYR_DATA names no data_to_fit001.csv")
@published
@pytest.mark.case("M01")
def test_the_covariance_of_run001() -> None:
    (doses, levels) = records(Path(DATA))["1"]
    asked = evidence(run001(), doses, levels)
    information = expected_information(asked, find_mode(asked).effects)[0]
    found = torch.linalg.inv(torch.linalg.inv(asked.covariance) + information).detach()
    places = torch.tril_indices(3, 3)
    wanted = case("M01")
    assert found[places[0], places[1]].tolist() == pytest.approx(
        wanted["expected"]["posterior_cov_id1"], rel=wanted["tolerance"]["cov_rel"]
    )
