"""A site's cohort for a study: encoded features, labels, and who is held out.

Nothing here leaves the site as it is: counts are reported only with the noise that the plan fixes.
The hold-out depends on the study, the plan's salt and the pseudonym alone, so that a patient stays
where they are when records are added.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.cohort.gathering import gather
from fedtwin_client.cohort.selection import Selected
from fedtwin_client.cohort.sequences import Sequences
from fedtwin_client.records.codes.tables import site_tables, using
from fedtwin_client.store.pieces import PatientColumns
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.encoding import encode
from fedtwin_protocol.errors import CohortError
from fedtwin_protocol.study import StudyPlan


@dataclass(frozen=True, kw_only=True, slots=True)
class CohortRows:
    """One row a patient, in the order of their pseudonyms; it stays at the site.

    Attributes:
        subject_ids: (patients,) int64.
        features: (patients, columns) float64, finite, within the clip ranges.
        labels: (patients,) float64, 1 where the endpoint happened; or its scaled value or count.
        days: (patients,) float64, to the event or out of sight; none unless a time is asked for.
        sequences: records of the patients; none unless the plan asks for them.
        holdout: (patients,) true for those kept for evaluation.
        columns: the names of the columns.
        exclusions: how many patients each reason left out; for the hospital alone.
        missing: patients without a value, for each feature; for the hospital alone.
        implausible: values outside the plausible range, for each feature and each code of the
            sequence; for the hospital alone.
        clipped: patients whose value or count lies beyond the plan's bounds, and counts as the
            nearest bound; for the hospital alone.
    """

    subject_ids: NDArray[np.int64]
    features: NDArray[np.float64]
    labels: NDArray[np.float64]
    holdout: NDArray[np.bool_]
    columns: tuple[str, ...]
    exclusions: dict[str, int]
    missing: dict[str, int]
    implausible: dict[str, int]
    days: NDArray[np.float64] | None = None
    sequences: Sequences | None = None
    clipped: int = 0

    def without(self, subject_ids: Collection[int]) -> "CohortRows":
        """The cohort without some patients; who is held out among the others stays the same.

        `exclusions`, `missing`, `implausible` and `clipped` are those of the cohort as built.

        Args:
            subject_ids: pseudonyms; those of nobody here change nothing.
        """
        keep = ~np.isin(self.subject_ids, np.array(sorted(subject_ids), dtype=np.int64))
        return replace(
            self,
            subject_ids=self.subject_ids[keep],
            features=self.features[keep],
            labels=self.labels[keep],
            holdout=self.holdout[keep],
            days=None if self.days is None else self.days[keep],
            sequences=None if self.sequences is None else self.sequences.where(keep),
        )


def build_cohort(
    timeline: Timeline, plan: StudyPlan, now: datetime, without: Collection[str] = ()
) -> CohortRows:
    """Build a study's cohort from the hospital's timeline, never looking ahead.

    Args:
        timeline: the store.
        plan: the study.
        now: aware; events after it do not count.
        without: features that count as missing for everybody here; what the contract says of a
            missing value is done with them.

    Returns:
        The encoded rows.

    Raises:
        CohortError: units do not fit (the feature is named), or too few patients remain. The
            text holds counts and is for the hospital only.
        RecordError: the records cannot be read.
    """
    moment = now.astimezone(UTC).replace(tzinfo=None)
    with using(site_tables(timeline.folder)):
        found = gather(PatientColumns(timeline=timeline), plan, moment, without)
    selected, raw, sequences = found.selected, found.features, found.sequences
    encoded = encode(plan.contract, raw.columns)
    implausible = {} if sequences is None else sequences.implausible
    exclusions = _with_missing(selected, encoded.keep)
    keep = encoded.keep
    subject_ids = selected.subject_ids[keep]
    require_enough(plan, len(subject_ids), exclusions)
    return CohortRows(
        subject_ids=subject_ids,
        features=encoded.matrix[keep],
        labels=selected.labels[keep],
        days=None if selected.days is None else selected.days[keep],
        sequences=None if sequences is None else sequences.rows.where(keep),
        holdout=held_out(plan, subject_ids),
        columns=plan.contract.columns,
        exclusions=exclusions,
        missing=encoded.missing,
        implausible={
            name: count + raw.implausible.get(name, 0)
            for name, count in encoded.implausible.items()
        }
        | implausible,
        clipped=int(selected.clipped[keep].sum()),
    )


def held_out(plan: StudyPlan, subject_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Who is kept for evaluation: SHA-256 of study, salt and pseudonym, below the fraction.

    Args:
        plan: names the study, the salt and the fraction.
        subject_ids: (patients,).
    """
    start = f"{plan.study}|{plan.cohort.holdout_salt}|"
    limit = plan.cohort.holdout_fraction * 2.0**64
    draws = [
        int.from_bytes(hashlib.sha256(f"{start}{subject}".encode()).digest()[:8], "big")
        for subject in subject_ids.tolist()
    ]
    return np.array([draw < limit for draw in draws], dtype=np.bool_)


def _with_missing(selected: Selected, keep: NDArray[np.bool_]) -> dict[str, int]:
    without = int((~keep).sum())
    reason = "lacks a value that the study needs"
    return selected.exclusions | ({reason: without} if without else {})


def require_enough(plan: StudyPlan, patients: int, exclusions: dict[str, int]) -> None:
    """Hold a cohort against the plan's smallest.

    Raises:
        CohortError: it is smaller; the text is for the hospital only.
    """
    if patients >= plan.sites.smallest_cohort:
        return
    left_out = "; ".join(f"{reason}: {count}" for reason, count in exclusions.items()) or "nobody"
    raise CohortError(
        f"study {plan.study} asks for at least {plan.sites.smallest_cohort} patients, and here are "
        f"{patients} (left out: {left_out}). The site takes no part, and nobody outside is told why"
    )
