"""A proposal as a person sees it on the screen: the file's form, a row a column, open questions."""

import numpy as np

from fedtwin_client.records.tables.proposals.judging import Judgement
from fedtwin_client.records.tables.proposals.profiles import Profile
from fedtwin_client.records.tables.proposals.proposing import Proposal

_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_THOUSANDS = {
    None: "",
    ".": ", points between thousands",
    ",": ", commas between thousands",
    "'": ", apostrophes between thousands",
    " ": ", spaces between thousands",
}
_ROLES = {
    "patient": "patient's number",
    "time": "time of the line",
    "known": "when it became known",
    "birth": "birth date",
    "age": "age",
    "sex": "sex",
    "beside": "read with another column",
    "lines": "line number, not read",
    "left": "",
}


def form_lines(proposal: Proposal) -> list[str]:
    """What form the file has, in words."""
    table = proposal.table
    more = "" if table.whole else " (only the start was looked at)"
    lines = [f"{table.path.name}: {table.rows:,} lines, {len(table.names)} columns{more}"]
    if table.format == "csv":
        header = "names in the first line" if table.header else "no line of names"
        lines.append(
            f"  CSV, {_DELIMITERS[table.delimiter]} between cells, {table.encoding}, {header}, "
            f"decimal {'comma' if table.figures.decimal == ',' else 'point'}"
            f"{_THOUSANDS[table.figures.thousands]}"
        )
    return lines


def rows(proposal: Proposal) -> list[list[str]]:
    """A row of text cells for each column of the file."""
    return [_row(item) for item in proposal.columns]


def open_questions(proposal: Proposal) -> list[str]:
    """Everything that a person must decide, each with its place in the mapping."""
    roles = {**proposal.table.unsure, **proposal.unsure}
    found = [f"{key}: {text}" for key, text in roles.items()]
    for item in proposal.columns:
        if item.role == "value":
            found += [f"{item.profile.name}: {text}" for text in item.unsure]
    return [" ".join(line.split()) for line in found]


def _row(item: Judgement) -> list[str]:
    profile = item.profile
    proposed = (item.code or profile.vocabulary or "") if item.role == "value" else ""
    unit = item.unit or (f"in {item.unit_column}" if item.unit_column else "")
    open_unit = item.role == "value" and item.kind == "number" and not unit
    return [
        " ".join(profile.name.split())[:40],
        f"{profile.count:,}",
        f"{profile.distinct:,}",
        _looks(profile),
        f"{proposed}{' ?' if item.unsure and proposed else ''}" or _ROLES[item.role],
        "?" if open_unit else unit,
        f"{item.score:.2f}" if item.score else "",
        "; ".join(item.why),
    ]


def _looks(profile: Profile) -> str:
    if profile.looks == "number" and len(profile.numbers):
        low, high = np.quantile(profile.numbers, [0.05, 0.95])
        return f"number, mostly {low:.4g} to {high:.4g}"
    if profile.looks == "date":
        return f"date, {profile.formats[0]}"
    if profile.looks == "codes":
        return f"codes of {profile.vocabulary}"
    return "yes or no" if profile.looks == "flag" else profile.looks
