"""A proposed mapping for a table: whose row, when, and what each column means.

Nothing is decided for the person who reviews it: what the names and the values do not tell is left
open, so that the mapping is refused until somebody fills it in.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedtwin_client.records.tables.proposals.judging import SURE, Judgement, judge
from fedtwin_client.records.tables.proposals.matching import heading_of, name_score, words_of
from fedtwin_client.records.tables.proposals.names import (
    AGE,
    BIRTH,
    DEATH,
    FEMALE,
    KNOWN,
    LINE_NUMBERS,
    MALE,
    PATIENT,
    SEX,
    TIME,
    UNIT,
    VALUE,
)
from fedtwin_client.records.tables.proposals.profiles import ISO, Profile, profile_of
from fedtwin_client.records.tables.proposals.sniffing import Table

_NAMED = 0.8


@dataclass(kw_only=True, slots=True)
class Proposal:
    """A proposed mapping.

    Attributes:
        table: the file's form.
        name: of the data set.
        columns: a judgement for each column, in the order of the file.
        patient, time, known, birth, age, sex: the columns of these roles.
        male, female: marks of the sex column.
        unsure: what a person must decide, by role.
    """

    table: Table
    name: str
    columns: list[Judgement]
    patient: Judgement | None = None
    time: Judgement | None = None
    known: Judgement | None = None
    birth: Judgement | None = None
    age: Judgement | None = None
    sex: Judgement | None = None
    male: tuple[str, ...] = ()
    female: tuple[str, ...] = ()
    unsure: dict[str, str] = field(default_factory=dict)


def propose(table: Table) -> Proposal:
    """Propose a mapping.

    Args:
        table: the start of a table.
    """
    profiles = [
        profile_of(name, cells, table.figures)
        for name, cells in zip(table.names, table.columns, strict=True)
    ]
    columns = [Judgement(profile=profile) for profile in profiles]
    proposal = Proposal(table=table, name=_slug(table.path.stem), columns=columns)
    _find_patient(proposal)
    _find_times(proposal)
    _find_traits(proposal)
    _find_values(proposal)
    return proposal


def _slug(text: str) -> str:
    return (re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "table")[:60]


def _free(proposal: Proposal) -> list[Judgement]:
    return [item for item in proposal.columns if item.role == "left"]


def _named(
    items: Sequence[Judgement], names: tuple[str, ...], fits: Callable[[Profile], bool]
) -> list[Judgement]:
    """The columns with such a name that hold such things, best first."""
    scored = [
        (name_score(heading_of(item.profile.name).words, names), item)
        for item in items
        if fits(item.profile)
    ]
    found = [(score, item) for score, item in scored if score >= _NAMED]
    found.sort(key=lambda pair: (-pair[0], _place(pair[1], names)))
    for score, item in found:
        item.score = round(score, 2)
    return [item for _, item in found]


def _place(item: Judgement, names: tuple[str, ...]) -> int:
    """Where a name stands in the lexicon's list: the surest spellings stand first."""
    joined = "".join(heading_of(item.profile.name).words)
    spelled = ["".join(words_of(name)) for name in names]
    return spelled.index(joined) if joined in spelled else len(spelled)


def _find_patient(proposal: Proposal) -> None:
    for item in proposal.columns:
        if item.profile.name == "" or _named([item], LINE_NUMBERS, _counts_lines):
            item.role, item.score = "lines", 1.0
            item.why.append("numbers the lines")
    found = _named(
        _free(proposal),
        PATIENT,
        lambda profile: profile.distinct > 1 and profile.looks in {"number", "text", "coded"},
    )
    if not found:
        proposal.unsure["subject"] = (
            "no column looks like a patient's number; is every line another patient?"
        )
        return
    best = proposal.patient = found[0]
    best.role = "patient"
    best.why.append(f"named like a patient's number; {best.profile.distinct:,} different")
    others = [item.profile.name for item in found[1:]]
    if others:
        proposal.unsure["subject"] = f"or is it {' or '.join(others)}?"
    elif best.score < SURE or best.profile.missing:
        proposal.unsure["subject"] = f"{best.profile.missing:,} lines have no number"


def _counts_lines(profile: Profile) -> bool:
    return profile.looks in {"number", "flag"} and profile.distinct == profile.count


def _is_date(profile: Profile) -> bool:
    return profile.looks == "date"


def _find_times(proposal: Proposal) -> None:
    free = [item for item in _free(proposal) if _is_date(item.profile)]
    births = _named(free, BIRTH, _is_date)
    if births:
        proposal.birth = births[0]
        _take(proposal, births[0], "birth", "named like a birth date")
    knowns = [item for item in _named(free, KNOWN, _is_date) if item.role == "left"]
    rest = [
        item
        for item in free
        if item.role == "left"
        and not DEATH & set(words_of(item.profile.name))
        and item not in knowns
    ]
    named = _named(rest, TIME, _is_date)
    if not rest and (both := _named(knowns, TIME, _is_date)):
        # A result's date is the line's where nothing says when the specimen was taken.
        named, knowns = both, [item for item in knowns if item is not both[0]]
    choices = named or rest
    if not choices:
        proposal.unsure["time"] = "no column looks like the date of a line; give one for all lines"
        return
    proposal.time = choices[0]
    _take(proposal, choices[0], "time", "a date" + (", by its name the line's" if named else ""))
    if not named and len(rest) == 1:
        _ask(proposal, "time", "its name does not say that it is the line's date: is it?")
    others = [item.profile.name for item in rest if item is not choices[0]]
    if others and (not named or len(named) > 1):
        _ask(proposal, "time", f"or is it {' or '.join(others[:6])}?")
    if choices[0].profile.missing:
        missing = choices[0].profile.missing
        _ask(proposal, "time", f"{missing:,} lines have no date and would be put aside")
    if knowns:
        proposal.known = knowns[0]
        _take(proposal, knowns[0], "known", "named like the date when it became known")


def _ask(proposal: Proposal, role: str, note: str) -> None:
    before = proposal.unsure.get(role)
    proposal.unsure[role] = f"{before}; {note}" if before else note


def _take(proposal: Proposal, item: Judgement, role: str, why: str) -> None:
    """Give a date column its role, and say what is open about its format."""
    profile = item.profile
    item.role = role  # type: ignore[assignment]
    item.score = max(item.score, 0.6)
    item.why.append(f"{why}; {profile.formats[0]}")
    notes = []
    rivals = [form for form in profile.formats[1:] if profile.formats[0] != ISO]
    if rivals:
        notes.append(f"every date also fits {' and '.join(rivals[:3])}: which is it?")
    if profile.strays:
        notes.append(f"{profile.strays:,} cells have another form and would be put aside")
    if "%y" in profile.formats[0]:
        notes.append("years of two figures: 68 is read as 2068, 69 as 1969")
    if notes:
        proposal.unsure[role] = "; ".join(notes)


def _find_traits(proposal: Proposal) -> None:
    ages = _named(_free(proposal), AGE, _is_age)
    if ages:
        ages[0].role = "age"
        ages[0].why.append("named like an age; all values from 0 to 120")
        if proposal.birth is None:
            proposal.age = ages[0]
    sexes = _named(_free(proposal), SEX, lambda profile: 1 <= profile.distinct <= 5)
    if not sexes:
        return
    proposal.sex = sexes[0]
    sexes[0].role = "sex"
    sexes[0].why.append(f"marks: {', '.join(sexes[0].profile.values)}")
    _tell_marks(proposal, sexes[0].profile)


def _is_age(profile: Profile) -> bool:
    numbers = profile.numbers
    return profile.looks == "number" and bool(
        len(numbers) and np.all((numbers >= 0) & (numbers <= 120))
    )


def _tell_marks(proposal: Proposal, profile: Profile) -> None:
    words = {cell: " ".join(words_of(cell)) for cell in profile.values}
    stripped = {cell: re.sub(r"^\d+ ", "", word) for cell, word in words.items()}
    proposal.male = tuple(cell for cell, word in stripped.items() if word in MALE)
    proposal.female = tuple(cell for cell, word in stripped.items() if word in FEMALE)
    spanish = {"h", "m"} <= set(stripped.values())
    if spanish and not proposal.female:
        proposal.male = tuple(cell for cell, word in stripped.items() if word == "h")
        proposal.female = tuple(cell for cell, word in stripped.items() if word == "m")
        proposal.unsure["sex"] = "is 'H' hombre (male) and 'M' mujer (female)?"
        return
    if not proposal.male or not proposal.female:
        proposal.male = proposal.female = ()
        proposal.unsure["sex"] = f"which marks mean male, which female? {', '.join(profile.values)}"
        return
    rest = set(profile.values) - {*proposal.male, *proposal.female}
    if rest:
        proposal.unsure["sex"] = f"these marks would count as unknown: {', '.join(sorted(rest))}"


def _find_values(proposal: Proposal) -> None:
    free = {id(item) for item in _free(proposal)}
    columns = proposal.columns
    units = _units_of(proposal, free)
    for place, item in enumerate(columns):
        if id(item) in free and item.role == "left":
            columns[place] = judge(item.profile, units.get(item.profile.name))
    _join_long_table(proposal)
    for item in columns:
        if any(unit.name == item.profile.name for unit in units.values()):
            used = any(other.unit_column == item.profile.name for other in columns)
            item.role = "beside" if used else item.role
            item.why = ["units of the column beside it"] if used else item.why


def _units_of(proposal: Proposal, free: set[int]) -> dict[str, Profile]:
    """The unit column of each number column: the one that carries its name, or stands after it."""
    found: dict[str, Profile] = {}
    before: Profile | None = None
    for item in proposal.columns:
        profile = item.profile
        words = words_of(profile.name)
        named = name_score(words, UNIT) >= 0.5 or any(word in UNIT for word in words)
        if id(item) in free and profile.looks in {"unit", "coded"} and named:
            bare = "".join(word for word in words if word not in UNIT)
            owner = next(
                (
                    other.profile
                    for other in proposal.columns
                    if bare and "".join(heading_of(other.profile.name).words) == bare
                ),
                before,
            )
            if owner is not None and profile.looks == "unit":
                found[owner.name] = profile
        elif profile.looks == "number":
            before = profile
    return found


def _join_long_table(proposal: Proposal) -> None:
    """A column of codes with its values, where each line is one measurement."""
    codes = [item for item in proposal.columns if item.kind == "code"]
    if len(codes) != 1:
        return
    free = [item for item in proposal.columns if item.role == "left"]
    values = _named(free, VALUE, lambda profile: profile.figures >= profile.count / 2 > 0)
    units = _named(free, UNIT, lambda profile: profile.looks in {"unit", "coded"})
    if codes[0].profile.vocabulary != "LOINC" or not values:
        return
    codes[0].value_column = values[0].profile.name
    values[0].role, values[0].why = "beside", ["values of the codes"]
    words = values[0].profile.count - values[0].profile.figures
    if words:
        codes[0].unsure.append(
            f"{words:,} of {values[0].profile.count:,} values are no numbers and would be put aside"
        )
    if units:
        codes[0].unit_column = units[0].profile.name
        units[0].role, units[0].why = "beside", ["units of the values"]
    else:
        codes[0].unsure.append("no column holds the units")
