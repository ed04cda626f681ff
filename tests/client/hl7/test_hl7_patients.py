"""HL7 v2: whose number it is; birth, sex and death; diagnoses and medications."""

from datetime import datetime
from pathlib import Path

import pytest

from fedtwin_client.records.events import BIRTH, DEATH, SEX
from fedtwin_client.records.hl7.patients import Whose
from fedtwin_client.records.pseudonyms import Identity, pseudonym
from fedtwin_client.records.source import Version

from .hl7_parts import OBR, PID, SECRET, events, load, message, msh, obx, read, result

TYPE_COUNTS = "say which type counts (--number-type)"
WHOSE_COUNTS = "say whose counts (--authority)"
URL = "http://h/mrn"
NOT_DEAD = "a date of death of a patient who is not dead (PID-30)"


def adt(*segments: str, event: str = "A08", sent: str = "20240501093100") -> str:
    return message(msh(f"ADT^{event}", f7=sent), "EVN|A08|20240501", *segments)


def pid(**fields: str) -> str:
    parts = ["PID", "1", "", "4711^^^HOSP^MR", "", "DOE^JANE", *[""] * 30]
    for name, value in fields.items():
        parts[int(name[1:])] = value
    return "|".join(parts).rstrip("|")


def who(number: str, whose: Whose) -> Identity | str:
    """Whom a PID-3 leads to: one of the identities below, or why nobody."""
    versions, tally = read(adt(pid(f3=number, f8="F")), whose=whose)
    if not versions:
        return next(iter(tally.reasons))
    (event,) = events(versions, "patient")
    candidates = [
        Identity(system, value)
        for system in ("HOSP", "OTHER", "urn:oid:1.2.3", "hl7", "http://h/mrn")
        for value in ("1", "2", "0012")
    ]
    return next(one for one in candidates if pseudonym(SECRET, one) == event.subject_id)


@pytest.mark.parametrize(
    ("number", "whose", "is_"),
    [
        ("1^^^HOSP^MR", Whose(), Identity("HOSP", "1")),
        ("0012^5^M11^HOSP&1.2.3&ISO^MR", Whose(), Identity("urn:oid:1.2.3", "0012")),
        ("1", Whose(), Identity("hl7", "1")),
        ("2^^^SSA^SS~1^^^HOSP^MR", Whose(), Identity("HOSP", "1")),
        ("1^^^HOSP^MR~2^^^OTHER^MR", Whose(authority="other"), Identity("OTHER", "2")),
        ("1^^^X&1.2.3&ISO^MR~2^^^Y^MR", Whose(authority="1.2.3"), Identity("urn:oid:1.2.3", "1")),
        ("1^^^HOSP^PI", Whose(kind="PI"), Identity("HOSP", "1")),
        ("1^^^HOSP^MR", Whose(authority="HOSP", system=URL), Identity(URL, "1")),
        ("1^^^^MR", Whose(system=URL), Identity(URL, "1")),
        ("1^^^HOSP^MR", Whose(system=URL), Identity("HOSP", "1")),
        ("1^^^HOSP^MR~1^^^HOSP^MR", Whose(), Identity("HOSP", "1")),
        ("", Whose(), "no patient number in PID-3"),
        ("1^^^HOSP^PI", Whose(), f"no patient number of type MR; {TYPE_COUNTS}"),
        ("1^^^HOSP^MR~2^^^OTHER^MR", Whose(), f"several patient numbers; {WHOSE_COUNTS}"),
        ("1^^^HOSP^MR", Whose(authority="X"), "no patient number of the authority 'X'"),
    ],
)  # fmt: skip
def test_which_number_is_the_patients(number: str, whose: Whose, is_: Identity | str) -> None:
    assert who(number, whose) == is_


def test_old_versions_have_the_number_elsewhere() -> None:
    for field in ("f2", "f4"):
        versions, _ = read(adt(pid(f3="", **{field: "1^^^HOSP"}, f8="M")))
        assert events(versions, "patient")[0].subject_id == pseudonym(SECRET, Identity("HOSP", "1"))


def test_numbers_that_an_option_does_not_join_are_noted() -> None:
    _, tally = read(adt(pid(f8="F")), whose=Whose(system="http://h/mrn"))
    assert tally.notes == {
        "patient numbers of an authority of their own; --authority joins them with http://h/mrn": 1
    }


def traits(*segments: str, zone: str = "UTC") -> dict[str, tuple[datetime | None, str | None]]:
    versions, _ = read(adt(*segments), zone=zone)
    found = events(versions, "patient")
    return {event.code: (event.time, event.text_value) for event in found}


def test_birth_sex_and_death() -> None:
    made = traits(pid(f7="19600203", f8="F", f29="20240102", f30="Y"), zone="Europe/Oslo")
    assert {code: f"{time:%Y-%m-%dT%H:%M:%S}" for code, (time, _) in made.items() if time} == {
        BIRTH: "1960-02-02T23:00:00",
        DEATH: "2024-01-02T22:59:59",
    }
    assert made[SEX] == (None, "female")


@pytest.mark.parametrize(
    ("written", "sex"),
    [("M", "male"), ("f", "female"), ("O", "other"), ("A", "other"), ("U", None),
     ("N", None), ('""', None), ("", None)],
)  # fmt: skip
def test_sex_in_words(written: str, sex: str | None) -> None:
    assert traits(pid(f8=written)).get(SEX, (None, None))[1] == sex


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"f7": "19601399"}, "PID-7: a time that cannot be read"),
        ({"f7": "29600101"}, "PID-7: lies in the future"),
        ({"f8": "7"}, "PID-8: a sex that is none of HL7 table 0001"),
        ({"f29": "20240101", "f30": "N"}, f"PID-29: {NOT_DEAD}"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_patient_is_put_aside(fields: dict[str, str], reason: str) -> None:
    versions, tally = read(adt(pid(**fields)))
    assert events(versions, "patient") == []
    assert tally.reasons == {reason: 1}


def test_notes_of_patients() -> None:
    assert read(adt(pid(f30="Y")))[1].notes == {"a death without a date": 1}
    assert read(adt(pid(f7="1960")))[1].notes == {"birth known only to the year": 1}


def rows_of(folder: Path, *messages: str) -> dict[str, str]:
    _, rows = load(folder, "".join(messages))
    return {row["code"]: row["text_value"] or str(row["time"])[:10] for row in rows}


def test_absent_says_nothing_and_null_empties(tmp_path: Path) -> None:
    first = adt(pid(f7="19600203", f8="F", f29="20240102"), sent="20240501100000")
    second = adt(pid(f8="M"), sent="20240501110000")
    third = adt(pid(f7='""', f30="N"), sent="20240501120000")
    assert rows_of(tmp_path, first, second) == {
        BIRTH: "1960-02-03",
        SEX: "male",
        DEATH: "2024-01-02",
    }
    assert rows_of(tmp_path, first, second, third) == {SEX: "male"}
    assert rows_of(tmp_path, third, second, first)[SEX] == "male"


def test_what_was_said_again_later_is_not_undone_by_a_late_message(tmp_path: Path) -> None:
    said = [("F", "20240501100000"), ("F", "20240501120000"), ("M", "20240501110000")]
    messages = [adt(pid(f8=sex), sent=sent) for sex, sent in said]
    assert rows_of(tmp_path, *messages) == {SEX: "female"}


def test_a_laboratory_that_does_not_know_takes_nothing_out(tmp_path: Path) -> None:
    known = adt(pid(f8="F", f29="20240102"), sent="20240501100000")
    lab = message(msh(f7="20240501110000"), pid(f8="U", f30="N"), OBR)
    assert rows_of(tmp_path, known, lab) == {SEX: "female", DEATH: "2024-01-02"}
    assert read(lab)[1].reasons["a sex that the sender does not know"] == 1


def test_an_order_of_one_patient_is_not_taken_for_the_next_ones() -> None:
    text = message(msh("RDE^O11"), pid(), order(), RXE, pid(f3="4712^^^HOSP^MR"), RXE)
    versions, tally = read(text)
    assert len({version.origin for version in versions}) == 2
    assert tally.reasons == {"no time": 1}


def test_birth_is_a_day_of_the_hospital_wherever_it_was_written() -> None:
    versions, _ = read(adt(pid(f7="19600203"), sent="20240501100000+0600"))
    (event,) = events(versions, "patient")
    assert f"{event.time:%Y-%m-%dT%H:%M}" == "1960-02-03T00:00"


def test_removals_are_put_aside_and_nothing_goes() -> None:
    versions, tally = read(adt(pid(f8="F"), event="A29"))
    assert versions == []
    assert list(tally.reasons) == [
        "asks to delete a patient; 'client records erase' does that for a person"
    ]


def test_messages_and_segments_that_are_not_read_are_counted() -> None:
    _, tally = read(message(msh("SIU^S12"), PID), message(msh("<script>"), PID))
    assert tally.reasons == {
        "messages SIU^S12 are not read": 1,
        "messages of no known type are not read": 1,
    }
    assert tally.read == {"SIU^S12": 1, "of no known type": 1}
    _, tally = read(message(msh(), PID, "NTE|1||text", OBR))
    assert tally.reasons == {"segment NTE is not read": 1, "an order without results": 1}


def coded(versions: list[Version], what: str) -> list[tuple[str, str, str]]:
    return [
        (event.code, f"{event.time:%m%d%H}", f"{event.available_time:%m%d%H}")
        for event in events(versions, what)
    ]


def test_diagnoses() -> None:
    text = adt(
        pid(),
        "DG1|1||I21.9^Infarction^I10^22298006^^SCT|Infarction|20240301080000|F",
        "DG1|2||E11.9^Diabetes^I10||20240301|F|||||||||||||20240302120000",
        "DG1|3||X^Own^99L||20240301|F",
        "DG1|4||I10^Hypertension^I10|||F",
    )
    versions, tally = read(text)
    assert coded(versions, "diagnosis") == [
        ("SNOMED//22298006", "030108", "050109"),
        ("ICD10//I21.9", "030108", "050109"),
        ("ICD10//E11.9", "030100", "030212"),
    ]
    assert tally.reasons == {
        "a medication or diagnosis without a code of a shared vocabulary": 1,
        "no time": 1,
    }
    old = adt(pid(), "DG1|1|I10|I21.9|Infarction|20240301080000|F")
    assert coded(read(old)[0], "diagnosis") == [("ICD10//I21.9", "030108", "050109")]
    for working in "AW":
        told = adt(pid(), f"DG1|1|I10|I21.9|Infarction|20240301080000|{working}")
        assert coded(read(told)[0], "diagnosis") == [("ICD10//I21.9", "030108", "030108")]
    gone = adt(pid(), "DG1|1||I21.9^^I10|||F|||||||||||||||D")
    versions, tally = read(gone)
    assert (len(versions), tally.reasons) == (1, {"withdrawn (deleted)": 1})


def order(control: str = "NW", status: str = "", when: str = "20240301080000") -> str:
    return f"ORC|{control}|P1^EHR|||{status}||||{when}"


TQ1 = "TQ1|1||||||20240301080000"
RXE = "RXE||617314^Atorvastatin 20 MG^RXNORM^C10AA05^^ATC|20||mg"


@pytest.mark.parametrize(
    ("kind", "segments", "codes"),
    [
        ("RDE^O11", [order(), RXE], ["RXNORM//617314", "ATC//C10AA05"]),
        ("ORM^O01", [order(), "RXO|617314^^RXNORM|20"], ["RXNORM//617314"]),
        ("RDS^O13", [order(), RXE, "RXD|1|617314^^RXNORM|20240302"], ["RXNORM//617314"]),
        ("RAS^O17", [order(), "RXA|0|1|20240302||617314^^RXNORM"], ["RXNORM//617314"]),
        ("RDE^O11", [order(when=""), RXE, TQ1], ["RXNORM//617314", "ATC//C10AA05"]),
        ("RDE^O11", [order(when=""), TQ1, RXE], ["RXNORM//617314", "ATC//C10AA05"]),
        ("RDE^O11", [order("CA"), RXE], []),
        ("RDE^O11", [order(status="CA"), RXE], []),
        ("RDE^O11", [order("DC"), RXE], []),
        ("RDE^O11", [order(when=""), RXE], []),
        ("RDE^O11", [order(), RXE.replace("RXNORM", "99L").replace("ATC", "99X")], []),
        ("RAS^O17", [order(), "RXA|0|1|20240302||617314^^RXNORM" + "|" * 15 + "RE"], []),
    ],
)
def test_medications(kind: str, segments: list[str], codes: list[str]) -> None:
    versions, tally = read(message(msh(kind), pid(), *segments))
    assert [event.code for event in events(versions, "medication")] == codes
    assert bool(codes) or sum(tally.reasons.values()) == 1
    assert {f"{event.time:%m%d}" for event in events(versions, "medication")} <= {"0301", "0302"}


def test_every_dose_of_an_order_counts_and_a_repetition_does_not() -> None:
    doses = [f"RXA|0|1|202403{day}0800||617314^^RXNORM" for day in ("02", "03", "02")]
    versions, _ = read(*(message(msh("RAS^O17"), pid(), order(), dose) for dose in doses))
    doses_known = [version.origin for version in versions if events([version], "medication")]
    assert (len(doses_known), len(set(doses_known))) == (3, 2)
    gone = doses[0] + "|" * 16 + "D"
    versions, _ = read(message(msh("RAS^O17"), pid(), order(), gone))
    (withdrawn,) = [one for one in versions if one.origin == doses_known[0]]
    assert not list(withdrawn.events)


def test_a_cancelled_order_takes_its_event_out_and_a_stopped_one_does_not() -> None:
    new = message(msh("RDE^O11"), pid(), order(), RXE)
    versions, _ = read(new, message(msh("RDE^O11"), pid(), order("CA"), RXE))
    assert [len(list(version.events)) for version in versions] == [2, 0]
    assert len({version.origin for version in versions}) == 1
    versions, _ = read(new, message(msh("RDE^O11"), pid(), order("DC"), RXE))
    assert len(versions) == 1


def test_observations_of_visits_are_read(tmp_path: Path) -> None:
    text = adt(PID, obx("82", code="29463-7^^LN", unit="kg", f14="20240501080000"))
    assert [event.numeric_value for event in events(read(text)[0])] == [82]
    assert rows_of(tmp_path, text, result("5")) != {}
    assert OBR.startswith("OBR")
