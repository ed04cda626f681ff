"""Messages that say of two numbers that they are one patient (HL7 v2.8, chapter 3; segment MRG).

A18, A30, A34, A36 and A40 merge the patient of MRG-1 into the one of PID-3; A47 changes the number
in MRG-1 to the one in PID-3. What the timelines hold of the former is moved to the latter, as it is
for the links of FHIR Patients, and can be parted again. Other events that have an MRG concern
accounts and visits (A35, A41, A42, A44, A45, A49 to A51), numbers that are not the ones in PID-3
(A39, A46, A48), or move a number from one patient to another (A43): none of them makes two patients
one, and a person has to look.
"""

from typing import Final

from fedtwin_client.records.hl7.context import Context
from fedtwin_client.records.hl7.patients import Whose, identity_of
from fedtwin_client.records.hl7.text import Segment
from fedtwin_client.records.pseudonyms import Identity, Pseudonyms
from fedtwin_client.records.reading import UnusableError

MERGE: Final = "two numbers of one patient"
"""How the reason begins that waits for a person, and is no fault of a message."""
_FOLLOWED: Final = frozenset({"A18", "A30", "A34", "A36", "A40", "A47"})
_OTHERS: Final = frozenset(
    {"A35", "A39", "A41", "A42", "A43", "A44", "A45", "A46", "A48", "A49", "A50", "A51"}
)


def is_merge(event: str) -> bool:
    """Whether messages of an event speak of two numbers."""
    return event in _FOLLOWED or event in _OTHERS


def merge(
    segment: Segment,
    event: str,
    into: Identity,
    whose: Whose,
    context: Context,
    pseudonyms: Pseudonyms,
) -> int | None:
    """Follow a message, or set it aside with the reason.

    Args:
        segment: MRG.
        event: of the message, such as `A40`.
        into: the patient of PID.
        whose: which number counts, and whether the feed is believed.
        context: the message's circumstances.
        pseudonyms: remembers who is one person.

    Returns:
        The pseudonym that is no longer used; none if nothing is new.
    """

    def wrong(why: str) -> None:
        context.tally.wrong(f"{MERGE} (ADT^{event}): {why}", segment.place)

    if event not in _FOLLOWED:
        wrong("nothing was moved")
        return None
    if not whose.merges:
        wrong("nothing was moved; 'merges' says that this feed may do it")
        return None
    try:
        former = identity_of(segment, whose, context.reading.source, (1,))
    except UnusableError as error:
        wrong(error.reason)
        return None
    before = pseudonyms.of(former)
    fault = pseudonyms.merge(former, into)
    if fault is not None:
        wrong(fault)
        return None
    if before == pseudonyms.of(into):
        return None
    context.tally.note(f"a patient merged into another one (ADT^{event})", segment.place)
    return before
