"""What a hospital does for one patient, by their own number: objection, withdrawal, erasure.

Numbers become pseudonyms at once, by the module for it, and are written down nowhere.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from fedtwin_client.node.home import NodeHome
from fedtwin_client.node.policy import load_policy
from fedtwin_client.records.codes.unit_inference import values_put_aside
from fedtwin_client.records.merges import FILE, Merges
from fedtwin_client.records.pseudonyms import IdentityMap, pseudonym, written_identity
from fedtwin_client.store import quarantine
from fedtwin_client.store.consents import Consents
from fedtwin_client.store.erasure import erase_patient
from fedtwin_client.store.merging import unmerge as undo_merge
from fedtwin_protocol.errors import ConfigurationError, RecordError

_LONGEST_LINE: Final = 4096
NO_PART: Final = "takes no part by consent, objection or erasure"


def import_objections(
    home: NodeHome, secret: bytes, file: Path, system: str | None, now: datetime
) -> list[str]:
    """Add a file of patients' numbers, one a line, to the list of objections.

    Empty lines and lines that begin with # are passed over; of a line with commas or semicolons
    the first cell counts.

    Raises:
        RecordError: the file cannot be read or holds no number.
        ConfigurationError: it does not say whose numbers these are.
    """
    try:
        lines = list(_short_lines(file))
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"cannot read the list {file}: {error}; nothing was changed") from error
    cells = [line.replace(";", ",").partition(",")[0].strip().strip('"') for line in lines]
    numbers = {cell for cell in cells if cell and not cell.startswith("#")}
    if not numbers:
        raise RecordError(f"found no patient's number in {file}; nothing was changed")
    subjects = _pseudonyms(home, secret, numbers, system)
    known = len(subjects & _known(home))
    with Consents(home.records) as consents:
        added = consents.add_objections(subjects, now)
    return [
        f"{len(numbers)} numbers read; {added} objections are new",
        f"{known} of them are patients of this node; the others stay out if they come later",
        "running studies leave them out from their next task on",
    ]


def _short_lines(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8-sig") as opened:
        number = 1
        while line := opened.readline(_LONGEST_LINE + 1):
            if len(line) > _LONGEST_LINE:
                raise RecordError(
                    f"line {number} of {file} is longer than {_LONGEST_LINE:,} characters: "
                    "expected a patient's number a line; nothing was changed"
                )
            yield line
            number += 1


def withdraw(
    home: NodeHome, secret: bytes, number: str, system: str | None, now: datetime
) -> list[str]:
    """Put one patient on the list of objections."""
    subjects = _pseudonyms(home, secret, {number}, system)
    with Consents(home.records) as consents:
        added = consents.add_objections(subjects, now)
    known = bool(subjects & _known(home))
    return [
        "withdrawn" if added else "was on the list of objections before",
        "running studies leave the patient out from their next task on"
        if known
        else "no patient with this number is known here yet; check it, and --system. If they come "
        "later, they stay out",
    ]


def lift(home: NodeHome, secret: bytes, number: str, system: str | None) -> str:
    """Take one patient off the list of objections."""
    (subject,) = _pseudonyms(home, secret, {number}, system)
    with Consents(home.records) as consents:
        if consents.lift(subject):
            return "no longer on the list of objections; what FHIR Consents say still holds"
    return "was not on the list of objections"


def standing_in_words(
    home: NodeHome, secret: bytes, number: str, system: str | None, now: datetime
) -> list[str]:
    """One patient's state, for the hospital alone."""
    (subject,) = _pseudonyms(home, secret, {number}, system)
    rule = load_policy(home.policy_file).consent
    with Consents(home.records) as consents:
        found = consents.standing(subject, rule, now)
    known = "known here" if subject in _known(home) else "not known here"
    verdicts = ", ".join(found.verdicts) or "say nothing of research"
    return [
        f"takes part in research: {'yes' if found.takes_part else 'no'} (policy: {rule}; {known})",
        f"list of objections: {f'since {found.objected[:10]}' if found.objected else 'no'}",
        f"FHIR Consents: {verdicts}",
        f"erased: {f'since {found.erased[:10]}' if found.erased else 'no'}",
    ]


def erase(
    home: NodeHome, secret: bytes, number: str, system: str | None, now: datetime
) -> list[str]:
    """Erase one patient."""
    (subject,) = _pseudonyms(home, secret, {number}, system)
    found = erase_patient(home.records, subject, now)
    if not found.known and not found.events and not found.images:
        return [
            "no patient with this number is known here: check it, and --system",
            "the number is noted as erased, so that an import leaves the patient out",
        ]
    return [
        f"erased: {found.events} events, {found.images} image files and the way back to the "
        "patient; also all that was put aside in quarantine",
        "running studies leave the patient out from their next task on; an import of the same "
        "patient is left out and counted",
        "what was released before stays covered by its noise; erase the patient in the sources "
        "and in backups of the records, too",
    ]


def merged_in_words(home: NodeHome) -> list[str]:
    """Who was merged into whom, oldest first, by their numbers."""
    merges = Merges(home.records).all() if _has_map(home) else []
    people = IdentityMap(home.records / FILE) if merges else None
    lines = []
    for merge in merges:
        assert people is not None
        one, into = people.who_is(merge.subject_id), people.who_is(merge.into)
        lines.append(
            f"{one.value} ({one.system}) is {into.value} ({into.system}) since {merge.since[:10]}"
        )
    return lines or ["no patient was merged into another one"]


def unmerge(
    home: NodeHome, secret: bytes, number: str, system: str | None, now: datetime
) -> list[str]:
    """Take back that a patient is one with another.

    Raises:
        RecordError: the patient was not merged into another one.
    """
    whose = system or _only_system(home)
    events = undo_merge(home.records, pseudonym(secret, written_identity(whose, number)), now)
    return [
        f"a patient by themselves again, with {events} events; the two are kept apart from now on",
        "what came in since they were merged stays with the other one: import the patient's "
        "records again, which puts it where it belongs",
        "if one of them objected or denied, both are left out of research; see 'consent lift'",
    ]


def consent_counts(home: NodeHome, now: datetime) -> list[str]:
    """How many patients take part, and how many do not; these numbers stay here."""
    rule = load_policy(home.policy_file).consent
    patients = _known(home)
    with Consents(home.records) as consents:
        out = len(consents.absent(rule, patients, now))
        objections, erased = consents.objections(), len(consents.erased())
    return [
        f"policy {rule}",
        f"{len(patients) - out} patients take part, {out} do not",
        f"{objections} objections, {erased} erased",
    ]


def absent_from(home: NodeHome, subject_ids: frozenset[int], now: datetime) -> frozenset[int]:
    """Who of some patients takes no part now."""
    rule = load_policy(home.policy_file).consent
    with Consents(home.records) as consents:
        return consents.absent(rule, subject_ids, now)


def unitless_values(home: NodeHome) -> dict[str, list[float]]:
    """Values of FHIR Observations that imports put aside because they have no unit, by code.

    A record that was put aside by several imports counts once.

    Raises:
        ConfigurationError: a quarantine file does not open.
    """
    store = home.records
    lines = {line for name in quarantine.names(store) for line in quarantine.lines_of(store, name)}
    found: dict[str, list[float]] = {}
    for code, value in values_put_aside(iter(sorted(lines))):
        found.setdefault(code, []).append(value)
    return found


def _pseudonyms(
    home: NodeHome, secret: bytes, numbers: Iterable[str], system: str | None
) -> frozenset[int]:
    whose = system or _only_system(home)
    # Who was merged into another patient is that patient now, and an objection holds for both.
    wholes = Merges(home.records).wholes() if _has_map(home) else {}
    found = (pseudonym(secret, written_identity(whose, number)) for number in numbers)
    return frozenset(wholes.get(subject, subject) for subject in found)


def _only_system(home: NodeHome) -> str:
    path = home.records / "identities.sqlite"
    systems = IdentityMap(path).systems() if path.exists() else []
    if len(systems) != 1:
        listed = ", ".join(f"'{system}'" for system in systems) or "none yet"
        raise ConfigurationError(
            "say with --system whose numbers these are: the identifier system, or the name of the "
            f"server or table that the records came from. Patients here are known by: {listed}"
        )
    return systems[0]


def _known(home: NodeHome) -> frozenset[int]:
    return IdentityMap(home.records / FILE).known() if _has_map(home) else frozenset()


def _has_map(home: NodeHome) -> bool:
    return (home.records / FILE).exists()
