"""The researcher's bench: open a verified model in one line, ask it, and be told what it says.

    from fedtwin_research.bench import open_release
    model = open_release("heart-disease-risk")
    model.predict({"age": [63.0], "cholesterol": [6.0]}, units={"cholesterol": "mmol/L"})

Rules: a release is verified each time it is opened; columns must be exactly the contract's; a value
that is no number, in an unknown unit, or out of its plausible range is refused with its column and
row; a missing value is treated by the contract's rule, and counted in the warnings.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fedtwin_protocol.card import ModelCard
from fedtwin_protocol.contract import FeatureContract
from fedtwin_protocol.encoding import encode
from fedtwin_protocol.errors import ReleaseError
from fedtwin_protocol.release import Release
from fedtwin_research.columns import contract_columns
from fedtwin_research.library import Library, default_folder
from fedtwin_twins.families import scores_of
from fedtwin_twins.risk import logistic

RISKS = frozenset({"logistic_regression", "network", "discrete_hazard"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """Probabilities with what must be said about them; use it where an array is expected.

    Attributes:
        probability: of the endpoint, (patients,); NaN where the contract excludes the patient.
        card: the model's card.
        warnings: sentences about these patients.
    """

    probability: NDArray[np.float64]
    card: ModelCard
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        numbers = np.array2string(self.probability, precision=3, threshold=20, separator=", ")
        said = "".join(f"\n  {sentence}" for sentence in self.warnings)
        return f"{self.card.study} version {self.card.version} predicts {numbers}{said}"

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.probability, dtype=dtype, copy=True if copy is None else copy)

    def __len__(self) -> int:
        return len(self.probability)

    def __iter__(self) -> Iterator[float]:
        return iter(self.probability.tolist())

    def __getitem__(self, index: int) -> float:
        return float(self.probability[index])


@dataclass(frozen=True, slots=True)
class RiskModel:
    """A verified risk model."""

    release: Release

    def __repr__(self) -> str:
        card = self.card
        return f"RiskModel({card.study} version {card.version}: {card.title}; see explain())"

    @property
    def card(self) -> ModelCard:
        """The model card."""
        return self.release.card

    @property
    def contract(self) -> FeatureContract:
        """What `predict` must be given."""
        return self.release.plan.contract

    def predict(self, features: Any, units: Mapping[str, str] | None = None) -> Prediction:
        """Probability of the endpoint for each patient.

        Args:
            features: column name -> values, a list of one mapping for each patient, a pandas
                DataFrame, a pyarrow Table or a numpy array whose columns have names; names as in
                `explain()`. None and NaN mean missing.
            units: column name -> unit, for columns that are not in the contract's unit.

        Raises:
            ReleaseError: a wrong, missing or extra column, an unknown unit, or a value that is not
                possible; names the column, the row (counted from 0) and what was expected. Or the
                model foretells something else than a risk, or reads whole records.
        """
        self._check_asks_for_columns()
        columns = contract_columns(self.contract, features, units or {})
        encoded = encode(self.contract, columns.values)
        probability = np.full(columns.rows, np.nan)
        if encoded.keep.any():
            scores = scores_of(
                self.release.plan.model.family,
                self.release.parameters,
                encoded.matrix[encoded.keep],
            )
            probability[encoded.keep] = logistic(scores)
        warnings = (*columns.warnings, *self._said_by_card())
        return Prediction(probability=probability, card=self.card, warnings=warnings)

    def _check_asks_for_columns(self) -> None:
        plan = self.release.plan
        if plan.sequence is not None:
            raise ReleaseError(
                f"{plan.study} reads whole records of a patient, and a table of columns does not "
                "hold them: a hospital's node makes such predictions, 'fedtwin client report'"
            )
        if plan.model.family not in RISKS:
            raise ReleaseError(
                f"{plan.study} is a {plan.model.family.replace('_', ' ')} and foretells no risk; "
                "its parameters are in 'release.parameters', its scores in "
                "fedtwin_twins.families.scores_of"
            )

    def explain(self) -> tuple[str, ...]:
        """Lines that say what the model predicts, from what, how well, and within which limits."""
        card = self.card
        asked = [
            f"  {one.name}: {one.description or ', '.join(one.codes) or one.kind}"
            + (f" [{one.unit}]" if one.kind in {"number", "age"} else "")
            + (f" one of {', '.join(one.categories)}" if one.categories else "")
            + (f", {one.plausible[0]:g} to {one.plausible[1]:g}" if one.plausible else "")
            for one in self.contract.features
        ]
        measured = [f"  {one.name} {one.value:g} ({one.bought})" for one in card.metrics]
        privacy = card.privacy
        return (
            f"{card.title} ({card.study}, version {card.version}, {card.consortium})",
            f"Predicts {card.endpoint}",
            f"For {card.population}",
            "Asks for:",
            *asked,
            f"Privacy: epsilon {privacy.epsilon:g}, delta {privacy.delta:g}, mode {privacy.mode}",
            "Measured:" if measured else "Measured: nothing left the sites",
            *measured,
            f"Before use: {card.recalibration}",
            "Limits:",
            *(f"  {line}" for line in card.limits),
        )

    def _said_by_card(self) -> tuple[str, ...]:
        if self.card.privacy.mode == "none":
            return (self.card.recalibration, "Learned without privacy: mode 'none'.")
        return (self.card.recalibration,)


def open_release(study: str, folder: Path | str | None = None) -> RiskModel:
    """Open a model from the library, verifying it anew.

    Args:
        study: name of the study.
        folder: of the library; FEDTWIN_RELEASES or the user's own data folder if not given.

    Raises:
        ReleaseError: there is no such release, or it is not what it claims.
        SignatureError: the consortium's signatures are missing or wrong.
    """
    place = default_folder() if folder is None else Path(folder)
    return RiskModel(Library(place).open(study))
