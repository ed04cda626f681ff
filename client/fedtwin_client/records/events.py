"""One event of a patient's timeline: the MEDS columns and ours.

MEDS (github.com/Medical-Event-Data-Standard/meds) fixes `subject_id`, `time`, `code`,
`numeric_value`, `text_value` and the codes `MEDS_BIRTH` and `MEDS_DEATH`. Numbers are kept in
double precision, because a threshold such as 7.8 mmol/L must not move when a value is stored.
"""

from dataclasses import dataclass
from datetime import datetime

BIRTH = "MEDS_BIRTH"
DEATH = "MEDS_DEATH"
SEX = "SEX"


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """What happened to one patient at one time.

    Attributes:
        subject_id: the patient's pseudonym, 63 bits.
        time: when it happened, aware; none for what does not change (sex).
        code: `<VOCABULARY>//<code>`, or one of this module's codes.
        numeric_value: in `unit`.
        text_value: a coded or free answer.
        available_time: when it became known; a prediction at T uses what was known by T.
        unit: UCUM, after conversion; none where there is no number or no unit is known.
        src_unit: the unit as it was written.
        comparator: `<`, `<=`, `>` or `>=` where the value is a bound.
        source: `<origin>#<part>`; the origin is what a later import replaces as a whole.
        status: the record's own status, as it was written.
    """

    subject_id: int
    time: datetime | None
    code: str
    source: str
    numeric_value: float | None = None
    text_value: str | None = None
    available_time: datetime | None = None
    unit: str | None = None
    src_unit: str | None = None
    comparator: str | None = None
    status: str | None = None
