"""Modes beside those that NONMEM and Monolix published: the largest difference in any effect.

The cases are the published ones that need nothing but their own page (M03, M06 and M08), read
from the shared cases or from --pharmacology-cases. Each one's own tolerance is 1e-3.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from belief_models import F64, Parameters, doses_of, observed_of, predicting
from figures import Figure

from fedtwin_twins.belief.likelihood import Evidence
from fedtwin_twins.belief.mode import find_mode
from fedtwin_twins.twin.batch import Batch, Traits, constant_traits
from fedtwin_twins.twin.residuals import ResidualError

ROOT = Path(__file__).parents[1]
TOLERANCE = 1e-3


def measure(options: argparse.Namespace) -> list[Figure]:
    """The figure of this module; none where the cases are not at hand."""
    folder = options.pharmacology_cases or ROOT.parent / "shared" / "cases" / "pharmacology"
    if not folder.is_dir():
        print(f"there are no published cases in {folder}: name them with --pharmacology-cases")
        return []
    worst = max(one(folder) for one in (_tobramycin, _changing_covariates, _lag))
    return [
        Figure(
            id="map-max-eta-difference",
            value=worst,
            unit="of an effect",
            baseline=TOLERANCE,
            goal=TOLERANCE,
        )
    ]


def _case(folder: Path, name: str) -> dict[str, Any]:
    (path,) = folder.glob(f"{name}_*.json")
    case: dict[str, Any] = json.loads(path.read_text())
    return case


def _difference(
    name: str,
    given: dict[str, Any],
    parameters: Parameters,
    omega: list[float],
    expected: list[float],
    sd: float,
    traits: Traits | None = None,
) -> float:
    dose = given["dose"]
    row = tuple(dose.values()) if isinstance(dose, dict) else tuple(dose)
    levels = torch.tensor(given["obs"], dtype=F64)
    evidence = Evidence(
        predict=predicting(parameters),
        covariance=torch.diag(torch.tensor(omega, dtype=F64)),
        errors=(ResidualError(convention="proportional", proportional=sd),),
        batch=Batch(
            doses=doses_of([row]),
            traits=traits or constant_traits({"any": torch.ones(1, dtype=F64)}),
        ),
        observed=observed_of(levels[None, :, 0], levels[None, :, 1]),
    )
    found = find_mode(evidence).effects[0]
    apart = float((found - torch.tensor(expected, dtype=F64)).abs().max())
    print(f"{name}: {apart:.1e}")
    return apart


def _tobramycin(folder: Path) -> float:
    case = _case(folder, "M03")
    given = case["inputs"]
    elimination = 0.21 * (given["CLCR"] / 67.8) ** 0.89 * (given["WT"] / 66.4) ** -1.09
    size = 19.8 * (given["WT"] / 66.4) ** 0.80

    def parameters(batch: Batch, effects: torch.Tensor) -> dict[str, torch.Tensor]:
        del batch
        rate, volume = elimination * effects[:, :1].exp(), size * effects[:, 1:].exp()
        between = given["k12"] * volume
        return {
            "clearance": rate * volume,
            "volume": volume,
            "between": between,
            "second": between / given["k21"],
        }

    expected = case["expected"]["eta"]
    return _difference("M03, Monolix", given, parameters, given["omega"], expected, 0.198)


def _changing_covariates(folder: Path) -> float:
    case = _case(folder, "M06")
    given, expected = case["inputs"], case["expected"]
    times = [time for time, _ in given["BW_at"]]

    def column(name: str) -> torch.Tensor:
        return torch.tensor([[value for _, value in given[name][1:]]], dtype=F64)

    # The next record holds since the last one: spans begin where the record before them lies.
    traits = Traits(
        values={"weight": column("BW_at"), "female": column("SEX_at")},
        starts=torch.tensor([[-torch.inf, *times[1:-1]]], dtype=F64),
        occasions=torch.zeros(1, len(times) - 1, dtype=torch.int64),
    )

    def parameters(batch: Batch, effects: torch.Tensor) -> dict[str, torch.Tensor]:
        known = batch.traits.values
        typical = 4.0 * (known["weight"] / 75.0) ** 1.5 * 0.75 ** known["female"]
        return {
            "clearance": typical * effects[:, :1].exp(),
            "volume": (70.0 * effects[:, 1:].exp()).expand_as(typical),
        }

    wanted = [expected["eta_CL"], expected["eta_V"]]
    return _difference("M06, NONMEM", given, parameters, [0.2] * 2, wanted, 0.05**0.5, traits)


def _lag(folder: Path) -> float:
    case = _case(folder, "M08")
    typical = torch.tensor([4.0, 70.0, 1.0, 1.0], dtype=F64)
    names = ("clearance", "volume", "absorption", "lag")

    def parameters(batch: Batch, effects: torch.Tensor) -> dict[str, torch.Tensor]:
        del batch
        return dict(zip(names, (typical * effects.exp()).split(1, dim=1), strict=True))

    expected = case["expected"]["eta"]
    return _difference("M08, NONMEM", case["inputs"], parameters, [0.2] * 4, expected, 0.05**0.5)
