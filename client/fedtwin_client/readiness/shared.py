"""The version of a report that may leave the hospital: noised, rounded, and small cells masked.

What is shared is one vector of counts of patients (not of rows, of which one patient may have any
number), with Gaussian noise. One patient adds at most 1 to each cell that can be theirs, so the
vector moves by at most sqrt(cells of one patient), whoever is added or removed; the noise's sd is
sigma times that. Everything after the noise (rounding to 10, masking, quantiles from the noised
histogram) is computed from noised numbers and plan alone, and costs nothing more.

Of each patient are counted: the year of the index date and, where the endpoint has events, whether
any happened; and for each feature whether a usable value is in the look-back, only unusable ones,
or none; whether any row there is implausible; and for numbers whether any is in an unknown unit,
and the place of the mean usable value in 20 equal parts of the plausible range.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from math import sqrt
from typing import Any, Final

import duckdb
import numpy as np
from numpy.typing import NDArray

from fedtwin_client.cohort.conversions import TIDY
from fedtwin_client.cohort.selection import select_patients
from fedtwin_client.cohort.times import years_of
from fedtwin_client.readiness.counts import BINS
from fedtwin_client.readiness.questions import IN_LOOK_BACK, USABLE, ask, choose
from fedtwin_client.readiness.reference import LEVELS
from fedtwin_client.readiness.suppression import SHOWN, SMALL, suppress, with_totals
from fedtwin_client.store.pieces import PatientColumns
from fedtwin_client.store.timeline import Timeline
from fedtwin_client.training.noise import NoiseSource, noised
from fedtwin_protocol.contract import Feature
from fedtwin_protocol.errors import RecordError
from fedtwin_protocol.study import StudyPlan

Floats = NDArray[np.float64]
STATES: Final = ("usable", "only unusable", "none")
DEFECTS: Final = ("unknown_unit", "implausible")
ROUNDED_TO: Final = 10
FEWEST_FOR_QUANTILES: Final = 100
YEARS: Final = 12
"""Index dates of so many years up to now are told apart; earlier ones count together."""
_EACH: Final = f"""
SELECT c.subject_id, feature, bool_or({USABLE}) AS usable, bool_or(unknown_unit) AS unknown_unit,
    bool_or(implausible) AS implausible,
    avg(value) FILTER (kind = 'number' AND {USABLE}) AS mean
FROM judged JOIN chosen AS c ON judged.subject_id = c.subject_id
WHERE {IN_LOOK_BACK} GROUP BY ALL
"""  # noqa: S608 - constants


@dataclass(frozen=True, kw_only=True, slots=True)
class Contributions:
    """What each patient adds; it never leaves as it is.

    Attributes:
        subject_ids: (patients,) ascending.
        years: (patients, years, 2) one 1 each: by index date, oldest first, without and with an
            event; an endpoint that is a value counts in the first.
        states: (patients, features, 3) one 1 for each feature.
        defects: (patients, features, 2).
        places: (patients, features, 20) at most one 1 for each feature that is a number.
        numbers: (features,) whether a feature is a number.
    """

    subject_ids: NDArray[np.int64]
    years: Floats
    states: Floats
    defects: Floats
    places: Floats
    numbers: NDArray[np.bool_]

    @property
    def most(self) -> int:
        """Cells of one patient, at most: the largest squared change of the vector."""
        of_numbers = 2 + len(DEFECTS)  # a state, the defects, a place in the range
        return 1 + of_numbers * int(self.numbers.sum()) + 2 * int((~self.numbers).sum())

    def of(self, subject_ids: Sequence[int]) -> "Contributions":
        """The same of some patients only."""
        keep = np.isin(self.subject_ids, np.array(sorted(subject_ids), dtype=np.int64))
        return Contributions(
            subject_ids=self.subject_ids[keep],
            years=self.years[keep],
            states=self.states[keep],
            defects=self.defects[keep],
            places=self.places[keep],
            numbers=self.numbers,
        )


def contributions(timeline: Timeline, plan: StudyPlan, now: datetime) -> Contributions:
    """Collect what each patient of a study's cohort adds.

    Raises:
        CohortError: the cohort cannot be built.
        RecordError: the records cannot be read.
    """
    moment = now.astimezone(UTC).replace(tzinfo=None)
    try:
        with closing(timeline.connect()) as db:
            db.execute(TIDY)
            columns = PatientColumns(timeline=timeline)
            selected = select_patients(columns, plan, moment)
            ask(db, plan.features, columns.units())
            choose(db, selected)
            years = years_of(selected.index)
            found = db.execute(_EACH).fetchall()
    except duckdb.Error as error:
        raise RecordError(f"the records in {timeline.folder} cannot be read: {error}") from error
    ids = selected.subject_ids
    patients, features = len(ids), len(plan.features)
    made = Contributions(
        subject_ids=ids,
        years=np.zeros((patients, YEARS, 2)),
        states=np.zeros((patients, features, len(STATES))),
        defects=np.zeros((patients, features, len(DEFECTS))),
        places=np.zeros((patients, features, BINS)),
        numbers=np.array([one.kind == "number" for one in plan.features]),
    )
    place = np.clip(years - (moment.year - YEARS + 1), 0, YEARS - 1)
    happened = (selected.labels > 0) & (plan.endpoint.kind != "value")
    made.years[np.arange(patients), place, happened.astype(np.int64)] = 1.0
    made.states[:, :, STATES.index("none")] = 1.0
    for subject, number, usable, *defects, mean in found:
        row = int(np.searchsorted(ids, subject))
        made.states[row, number] = (1.0, 0.0, 0.0) if usable else (0.0, 1.0, 0.0)
        made.defects[row, number] = [float(bool(defect)) for defect in defects]
        if mean is not None:
            made.places[row, number, _bin(plan, number, mean)] = 1.0
    _demographics(made, plan, selected.age, selected.sex)
    return made


def _bin(plan: StudyPlan, number: int, value: float) -> int:
    plausible = plan.features[number].plausible
    assert plausible is not None
    low, high = plausible
    return min(BINS - 1, max(0, int(BINS * (value - low) / (high - low))))


def _demographics(made: Contributions, plan: StudyPlan, age: Floats, sex: Floats) -> None:
    for number, feature in enumerate(plan.features):
        if feature.kind in {"age", "sex"}:
            known = np.isfinite(age if feature.kind == "age" else sex)
            made.states[known, number] = (1.0, 0.0, 0.0)


def sharable(
    made: Contributions,
    plan: StudyPlan,
    now: datetime,
    price: tuple[float, float, float],
    source: NoiseSource,
    smallest: int,
) -> dict[str, Any]:
    """Noise, round and mask; the charge must be on disk before this is called.

    Args:
        made: of the patients who are charged.
        plan: the study.
        now: the time; names the years.
        price: sigma, epsilon and delta. The noise's sd is sigma times the largest change.
        source: of noise.
        smallest: the smallest count that is shown.

    Returns:
        plain JSON values.
    """
    sigma, epsilon, delta = price
    sd = sigma * sqrt(made.most)
    years, states, defects, places = (
        noised(part.sum(axis=0), sd, source)
        for part in (made.years, made.states, made.defects, made.places)
    )
    return {
        "format": "fedtwin-readiness-shared-1",
        "study": plan.study,
        "plan_hash": plan.hash,
        "made": now.astimezone(UTC).date().isoformat(),
        "privacy": {"unit": "patient", "epsilon": epsilon, "delta": delta, "noise_sd": sd},
        "smallest_shown": smallest,
        "rounded_to": ROUNDED_TO,
        "cohort": _years(plan, years, now, smallest),
        "features": {
            feature.name: _feature(
                feature, states[number], _named(feature, defects[number]), places[number], smallest
            )
            for number, feature in enumerate(plan.features)
        },
    }


def _named(feature: Feature, defects: Floats) -> dict[str, float]:
    """The defects that a feature of this kind can have."""
    possible = {"number": DEFECTS, "flag": ("implausible",), "category": ("implausible",)}
    found = dict(zip(DEFECTS, defects.tolist(), strict=True))
    return {name: found[name] for name in possible.get(feature.kind, ())}


def _years(plan: StudyPlan, table: Floats, now: datetime, smallest: int) -> dict[str, Any]:
    counted = plan.endpoint.kind != "value"
    names = ["without", "with"] if counted else ["patients"]
    inner = table if counted else table.sum(axis=1, keepdims=True)
    labels = [str(now.year - YEARS + 1 + place) for place in range(YEARS)]
    labels[0] += " and before"
    shown = spelled(with_totals(inner), smallest)
    return {
        "by": "year of the index date, and whether the endpoint happened",
        "columns": [*names, "all"],
        "rows": dict(zip([*labels, "all"], shown, strict=True)),
    }


def _feature(
    feature: Feature, states: Floats, defects: dict[str, float], places: Floats, smallest: int
) -> dict[str, Any]:
    row = with_totals(states[None, :])
    shown: dict[str, Any] = {
        "patients": dict(zip([*STATES, "all"], spelled(row, smallest)[0], strict=True)),
        "any": {name: spelled_alone(count, smallest) for name, count in defects.items()},
    }
    enough = min(float(states[0]), float(places.sum())) >= FEWEST_FOR_QUANTILES
    if feature.plausible is not None and enough:
        shown |= {"unit": feature.unit, "quantiles": quantiles(places, *feature.plausible)}
    return shown


def spelled(table: Floats, smallest: int) -> list[list[int | str]]:
    """A table with totals as it is shown: a number, `<10`, or `withheld`."""
    fate = suppress(table, smallest)
    words = {SMALL: f"<{smallest}"}
    return [
        [
            _rounded(float(number)) if one == SHOWN else words.get(int(one), "withheld")
            for number, one in zip(numbers, fates, strict=True)
        ]
        for numbers, fates in zip(table, fate, strict=True)
    ]


def spelled_alone(number: float, smallest: int) -> int | str:
    """A count that belongs to no table."""
    return _rounded(number) if number >= smallest else f"<{smallest}"


def _rounded(number: float) -> int:
    return ROUNDED_TO * max(1, round(number / ROUNDED_TO))


def quantiles(places: Floats, low: float, high: float) -> list[float]:
    """19 quantiles from a noised histogram; within a bin values are taken as evenly spread.

    Args:
        places: (bins,) noised counts; negative ones count as 0.
        low: the plausible range's lower end.
        high: its upper end.
    """
    heights = np.maximum(places, 0.0)
    edges = np.linspace(low, high, len(heights) + 1)
    sums = np.concatenate([[0.0], np.cumsum(heights)]) / heights.sum()
    found = []
    for level in LEVELS:
        place = min(int(np.searchsorted(sums[1:], level)), len(heights) - 1)
        part = (level - sums[place]) / (sums[place + 1] - sums[place])
        found.append(float(edges[place] + part * (edges[place + 1] - edges[place])))
    return [float(f"{value:.4g}") for value in found]
