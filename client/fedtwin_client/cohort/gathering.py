"""A study's patients and what is asked of each, in one pass over the store.

A patient lies in one piece of it, so each piece is selected from and summarised before the next
is read: every column is read once, and memory stays flat.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from fedtwin_client.cohort.features import FeatureValues, RawFeatures
from fedtwin_client.cohort.selection import Rules, Selected, together
from fedtwin_client.cohort.sequences import RawSequences, SequenceRecords
from fedtwin_client.store.pieces import PatientColumns
from fedtwin_protocol.study import StudyPlan


@dataclass(frozen=True, kw_only=True, slots=True)
class Gathered:
    """What a study is told of its patients, before encoding.

    Attributes:
        selected: the patients.
        features: their features' values.
        sequences: their records; none unless the plan asks for them.
    """

    selected: Selected
    features: RawFeatures
    sequences: RawSequences | None


def gather(
    columns: PatientColumns, plan: StudyPlan, now: datetime, without: Collection[str] = ()
) -> Gathered:
    """Select a study's patients, and collect their features and records.

    Args:
        columns: the store.
        plan: the study.
        now: UTC without a zone; nothing after it counts.
        without: features that are not looked at, and missing for everybody.

    Raises:
        CohortError: values are in a unit that does not fit; the feature is named.
        RecordError: a file cannot be read.
    """
    units = columns.units()
    rules = Rules(plan, now, units)
    features = FeatureValues(plan.features, units, without)
    records = None if plan.sequence is None else SequenceRecords(plan.sequence, units)
    parts = []
    read = rules.columns | features.columns | (set() if records is None else records.columns)
    for piece in columns.pieces(read):
        selected, places = rules.select(piece)
        features.add(piece, selected, places)
        if records is not None:
            records.add(piece, selected, places)
        parts.append(selected)
    selected, order = together(parts)
    return Gathered(
        selected=selected,
        features=features.whole(order),
        sequences=None if records is None else records.whole(order),
    )
