"""A proposal as a mapping file: YAML that a person reads, with `# unsure:` where one must decide.

The file is refused by the import until the line `reviewed: no` is gone, and what is left open
(`unit:` without a unit) is refused for its own sake.
"""

import re
from pathlib import Path

import yaml

from fedtwin_client.records.tables.proposals.judging import Judgement
from fedtwin_client.records.tables.proposals.profiles import ISO
from fedtwin_client.records.tables.proposals.proposing import Proposal
from fedtwin_protocol.errors import RecordError

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_/.-]*\Z")
_TRUTHS = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null"])


def write_proposal(proposal: Proposal, out: Path) -> None:
    """Write a proposal; a file that is there is never replaced.

    Raises:
        RecordError: there is such a file, or it cannot be written.
    """
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(proposal_text(proposal))
    except FileExistsError as error:
        raise RecordError(f"{out} exists; give another name, or move it away first") from error
    except OSError as error:
        raise RecordError(f"cannot write {out}: {error.strerror}") from error


def proposal_text(proposal: Proposal) -> str:
    """A proposal as a mapping file."""
    lines = [
        f"# A proposed mapping for {_comment(proposal.table.path.name)}. Decide every line marked "
        "'unsure',",
        "# then remove the line 'reviewed: no'; until then nothing is imported with it.",
        "reviewed: no",
        f"name: {proposal.name}",
        *_form(proposal),
        *_roles(proposal),
        *_values(proposal),
        *_left(proposal),
    ]
    return "\n".join(lines) + "\n"


def _form(proposal: Proposal) -> list[str]:
    table = proposal.table
    lines = []
    if table.format == "parquet":
        lines.append("format: parquet")
    else:
        if table.path.suffix in {".parquet", ".pq"}:
            lines.append("format: csv")
        for key, value, default in (
            ("delimiter", table.delimiter, ","),
            ("encoding", table.encoding, "utf-8"),
            ("decimal", table.figures.decimal, "."),
            ("thousands", table.figures.thousands or "", ""),
        ):
            if value != default or key in table.unsure:
                lines.append(_noted(f"{key}: {_scalar(value)}", table.unsure.get(key)))
        if not table.header:
            names = ", ".join(_scalar(name) for name in table.names)
            lines.append(_noted("header: false", table.unsure.get("header")))
            lines.append(_noted(f"column_names: [{names}]", "give the columns their names"))
        elif "header" in table.unsure:
            lines.append(_noted("header: true", table.unsure["header"]))
    if "lines" in table.unsure:
        lines.append(f"# unsure: {_comment(table.unsure['lines'])}")
    if not table.whole:
        lines.append(f"# Only the first {table.rows:,} lines were looked at.")
    marks = sorted({mark for item in proposal.columns for mark in item.profile.marks})
    if marks:
        listed = ", ".join(_scalar(mark) for mark in ["", "NA", "NaN", "null", *marks])
        lines.append(f"missing: [{listed}]")
    return lines


def _roles(proposal: Proposal) -> list[str]:
    unsure = proposal.unsure
    if proposal.patient is None:
        subject = "subject: {row_number: true}"
    else:
        subject = f"subject: {{column: {_scalar(proposal.patient.profile.name)}}}"
    lines = [_noted(subject, unsure.get("subject"))]
    if proposal.time is None:
        lines.append(_noted("time: {date: }", unsure.get("time")))
    for role, item in (
        ("time", proposal.time),
        ("known", proposal.known),
        ("birth", proposal.birth),
    ):
        if item is not None:
            lines.append(_noted(f"{role}: {{{_dated(item)}}}", unsure.get(role)))
    if proposal.age is not None:
        lines.append(f"birth: {{age_column: {_scalar(proposal.age.profile.name)}}}")
    if proposal.sex is not None:
        male, female = (
            f"[{', '.join(_scalar(mark) for mark in marks)}]" if marks else ""
            for marks in (proposal.male, proposal.female)
        )
        column = _scalar(proposal.sex.profile.name)
        block = f"sex: {{column: {column}, male: {male}, female: {female}}}"
        lines.append(_noted(block, unsure.get("sex")))
    return lines


def _dated(item: Judgement) -> str:
    form = item.profile.formats[0]
    column = f"column: {_scalar(item.profile.name)}"
    return column if form == ISO else f"{column}, format: {_quoted(form)}"


def _values(proposal: Proposal) -> list[str]:
    found = [item for item in proposal.columns if item.role == "value"]
    if not found:
        return [_noted("columns: {}", "no column is known by its name; add those that you need")]
    lines = ["columns:"]
    for item in found:
        lines.append(f"  # score {item.score:.2f}: {_comment('; '.join(item.why))}")
        block = f"  {_scalar(item.profile.name)}: {{{_meaning(item)}}}"
        lines.append(_noted(block, "; ".join(item.unsure) or None))
    return lines


def _meaning(item: Judgement) -> str:
    parts = []
    if item.code is not None:
        parts.append(f"code: {item.code}")
    if item.kind != "number":
        parts.append(f"kind: {item.kind}")
    if item.kind == "code":
        parts.append(f"vocabulary: {item.profile.vocabulary}")
    if item.value_column is not None:
        parts.append(f"value_column: {_scalar(item.value_column)}")
    if item.unit_column is not None:
        parts.append(f"unit_column: {_scalar(item.unit_column)}")
    elif item.kind == "number" or item.value_column is not None:
        parts.append(f"unit: {_quoted(item.unit) if item.unit else ''}")
    if item.missing:
        parts.append(f"missing: [{', '.join(f'{mark:g}' for mark in item.missing)}]")
    if item.values:
        pairs = ", ".join(
            f"{_quoted(cell)}: {'true' if yes else 'false'}" for cell, yes in item.values.items()
        )
        parts.append(f"values: {{{pairs}}}")
    return ", ".join(parts)


def _left(proposal: Proposal) -> list[str]:
    left = [item for item in proposal.columns if item.role == "left"]
    if not left:
        return []
    lines = ["# Not proposed, and not read unless you add them under 'columns':"]
    for item in left:
        says = "; ".join([*item.why, *item.unsure])
        lines.append(f"#   {_comment(item.profile.name)}: {_comment(says)}")
    return lines


def _noted(line: str, unsure: str | None) -> str:
    return line if not unsure else f"{line}  # unsure: {_comment(unsure)}"


def _comment(text: str) -> str:
    """One line of printable characters."""
    plain = " ".join(text.split())
    return "".join(char if char.isprintable() else "?" for char in plain)[:400]


def _scalar(text: str) -> str:
    plain = _PLAIN.match(text) and text.lower() not in _TRUTHS
    return text if plain else _quoted(text)


def _quoted(text: str) -> str:
    dumped = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=10**9)
    return str(dumped).strip()
