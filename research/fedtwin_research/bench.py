"""The researcher's bench: open a verified model in one line, ask it, and be told what it says.

    from fedtwin_research.bench import open_release
    model = open_release("heart-disease-risk")
    model.predict({"age": [63.0], "cholesterol": [6.0]}, units={"cholesterol": "mmol/L"})

Rules: a release is verified each time it is opened; columns must be exactly the contract's; a value
that is no number, in an unknown unit, or out of its plausible range is refused with its column and
row; a missing value is treated by the contract's rule, and counted in the warnings.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtwin_protocol.card import ModelCard
from fedtwin_protocol.contract import FeatureContract
from fedtwin_protocol.encoding import encode
from fedtwin_protocol.errors import ReleaseError
from fedtwin_protocol.release import Release
from fedtwin_protocol.study import FAMILY_ENDPOINTS
from fedtwin_protocol.study_population import FAMILY as POPULATION
from fedtwin_research.columns import contract_columns
from fedtwin_research.library import Library, default_folder
from fedtwin_research.patient_records import record_rows
from fedtwin_research.population import Value, caution, foretell, population_table
from fedtwin_research.prediction import (
    KINDS,
    Floats,
    Prediction,
    beyond_the_learned,
    foretold,
    in_own_unit,
)
from fedtwin_twins.families import scores_of
from fedtwin_twins.survival import risk_curve


@dataclass(frozen=True, slots=True)
class ReleasedModel:
    """A verified model."""

    release: Release

    def __repr__(self) -> str:
        card = self.card
        return f"ReleasedModel({card.study} version {card.version}: {card.title}; see explain())"

    @property
    def card(self) -> ModelCard:
        """The model card."""
        return self.release.card

    @property
    def contract(self) -> FeatureContract:
        """What `predict` must be given."""
        return self.release.plan.contract

    def predict(
        self, features: Any, units: Mapping[str, str] | None = None, records: Any = None
    ) -> Prediction:
        """What the model foretells of each patient: a probability, a value or a count.

        Args:
            features: column name -> values, a list of one mapping for each patient, a pandas
                DataFrame, a pyarrow Table or a numpy array whose columns have names; names as in
                `explain()`. None and NaN mean missing.
            units: column name -> unit, for columns that are not in the contract's unit.
            records: of the patients, for a model that reads them; see `patient_records`.

        Raises:
            ReleaseError: a wrong, missing or extra column, an unknown unit, or a value that is not
                possible; names the column, the row (counted from 0) and what was expected. Or
                records are missing or not asked for, or the model family is the sites' own.
        """
        plan = self.release.plan
        self._check_asked(records)
        columns = contract_columns(self.contract, features, units or {})
        encoded = encode(self.contract, columns.values)
        keep, matrix = encoded.keep, encoded.matrix
        read, told = None, columns.warnings
        if plan.sequence is not None:
            checked = record_rows(plan.sequence, records, columns.rows)
            read, told = checked.rows, (*told, *checked.warnings)
        scores, central = np.full(columns.rows, np.nan), np.full((columns.rows, 0), np.nan)
        if plan.model.family == POPULATION:
            central = np.full((columns.rows, 2), np.nan)
            scores[keep], central[keep] = foretell(plan, self.release.parameters, matrix[keep])
            told = (*told, *caution(plan, self.release.parameters))
        elif keep.any():
            scores[keep] = scores_of(
                plan.model.family,
                self.release.parameters,
                matrix[keep],
                None if read is None else read.where(keep),
                plan.model.heads,
            )
        told = (*told, *beyond_the_learned(plan.endpoint, scores), *self._said_by_card())
        return Prediction(
            values=in_own_unit(plan.endpoint, plan.model.family, scores),
            kind=KINDS[plan.endpoint.kind],
            unit=plan.endpoint.unit if plan.endpoint.kind == "value" else "1",
            card=self.card,
            warnings=told,
            days=plan.endpoint.interval_days,
            risk_over_time=self._risk_over_time(matrix, keep),
            central_90=central,
        )

    def cautions(self) -> tuple[str, ...]:
        """What must be said of the values of a population study.

        Raises:
            ReleaseError: the study is not about a population.
        """
        return caution(self.release.plan, self.release.parameters)

    def population(self) -> tuple[Value, ...]:
        """Every population value with its error, in the features' and the endpoint's own units.

        Raises:
            ReleaseError: the study is not about a population.
        """
        return population_table(self.release.plan, self.release.parameters)

    def _check_asked(self, records: Any) -> None:
        plan = self.release.plan
        if plan.model.family not in FAMILY_ENDPOINTS:
            raise ReleaseError(
                f"{plan.study} is of the family '{plan.model.family}', which its sites installed "
                "themselves: how it predicts is not known here; its parameters are in "
                "'release.parameters'"
            )
        if plan.sequence is not None and records is None:
            words = ", ".join(word.code for word in plan.sequence.vocabulary[:3])
            raise ReleaseError(
                f"{plan.study} reads whole records: give 'records', for each patient a list of "
                f"(code, value, unit, days before the index date), with codes such as {words}"
            )
        if plan.sequence is None and records is not None:
            raise ReleaseError(f"{plan.study} reads columns alone: leave 'records' out")

    def _risk_over_time(self, matrix: Floats, keep: NDArray[np.bool_]) -> Floats:
        """The risk by the end of each interval, (patients, intervals)."""
        ends = self.release.plan.endpoint.interval_days
        risk = np.full((len(matrix), len(ends)), np.nan)
        if ends and keep.any():
            risk[keep] = risk_curve(self.release.parameters, matrix[keep])
        return risk

    def explain(self) -> tuple[str, ...]:
        """Lines that say what the model predicts, from what, how well, and within which limits."""
        card = self.card
        asked = [
            f"  {one.name}: {one.description or ', '.join(one.codes) or one.kind}"
            + (", how many," if one.counts else "")
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
            f"Gives {foretold(self.release.plan.endpoint)}",
            f"For {card.population}",
            "Asks for:",
            *asked,
            *self._records_asked_for(),
            f"Privacy: epsilon {privacy.epsilon:g}, delta {privacy.delta:g}, mode {privacy.mode}",
            "Measured:" if measured else "Measured: nothing left the sites",
            *measured,
            f"Before use: {card.recalibration}",
            "Limits:",
            *(f"  {line}" for line in card.limits),
        )

    def _records_asked_for(self) -> list[str]:
        """Lines about the records that the model reads, if it does."""
        sequence = self.release.plan.sequence
        if sequence is None:
            return []
        window = "" if sequence.window_days is None else f" of the {sequence.window_days} days"
        return [
            f"And for records{window} before the index date, the most recent "
            f"{sequence.most_records}, with the codes:",
            *(
                f"  {word.code}"
                + (
                    f" [{word.unit}], {word.plausible[0]:g} to {word.plausible[1]:g}"
                    if word.plausible
                    else ""
                )
                for word in sequence.vocabulary
            ),
        ]

    def _said_by_card(self) -> tuple[str, ...]:
        if self.card.privacy.mode == "none":
            return (self.card.recalibration, "Learned without privacy: mode 'none'.")
        return (self.card.recalibration,)


def open_release(study: str, folder: Path | str | None = None) -> ReleasedModel:
    """Open a model from the library, verifying it anew.

    Args:
        study: name of the study.
        folder: of the library; FEDTWIN_RELEASES or the user's own data folder if not given.

    Raises:
        ReleaseError: there is no such release, or it is not what it claims.
        SignatureError: the consortium's signatures are missing or wrong.
    """
    place = default_folder() if folder is None else Path(folder)
    return ReleasedModel(Library(place).open(study))
