"""A trial's plan as people write it, and the rows that it may draw patients from."""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from pydantic import ValidationError

from fedtwin_protocol.contract import complaint
from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.strict_yaml import load_strictly
from fedtwin_twins.trials.covariates import Rows
from fedtwin_twins.trials.plan import TrialPlan
from fedtwin_twins.trials.population import RowsFile


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadPlan:
    """A plan with what it was read from.

    Attributes:
        plan: checked.
        text: the file as it was written, for the report's folder.
        rows: covariates of real patients, if the plan names a file.
        rows_sha256: of that file; empty without one.
    """

    plan: TrialPlan
    text: bytes
    rows: Rows | None
    rows_sha256: str


def read_plan(path: Path) -> ReadPlan:
    """Read a plan and the rows it names.

    Raises:
        PlanError: a file cannot be read, or a field is wrong (named in the text).
    """
    try:
        text = path.read_bytes()
        value = load_strictly(text.decode())
    except OSError as error:
        raise PlanError(f"cannot read the trial's plan {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PlanError(f"{path} is not YAML: {error}") from error
    if not isinstance(value, dict):
        raise PlanError(
            f"{path} holds no trial: expected fields such as 'name' and 'arms'; "
            "'fedtwin research trial --example tacrolimus' writes one"
        )
    plan = plan_of(value, str(path))
    if plan.population.rows is None:
        return ReadPlan(plan=plan, text=text, rows=None, rows_sha256="")
    rows, digest = _read_rows(plan.population.rows, path.parent)
    return ReadPlan(plan=plan, text=text, rows=rows, rows_sha256=digest)


def plan_of(value: object, where: str) -> TrialPlan:
    """Check a plan that came as plain values, with all its what-ifs.

    Raises:
        PlanError: a field is wrong (named in the text).
    """
    try:
        plan = TrialPlan.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        lines = [
            f"  {'.'.join(map(str, item['loc'])) or 'the trial as a whole'}: {complaint(item)}"
            for item in faults
            if not _only_follows(item["type"], item["loc"], [one["loc"] for one in faults])
        ]
        raise PlanError(f"{where} does not add up:\n" + "\n".join(lines)) from error
    for one in plan.what_if:
        for number in (one.low, one.high):
            try:
                plan.changed(one.setting, number)
            except ValidationError as error:
                reason = complaint(error.errors(include_url=False)[0])
                text = f"{where}: what_if {one.setting} = {number:g}: {reason}"
                raise PlanError(text) from error
            except ValueError as error:
                raise PlanError(f"{where}: {error}") from error
    return plan


def _only_follows(kind: str, place: tuple[object, ...], places: list[tuple[object, ...]]) -> bool:
    """A list is too short only because one of its items is wrong, which is said already."""
    inner = [one for one in places if len(one) > len(place) and one[: len(place)] == place]
    return kind == "too_short" and bool(inner)


def _read_rows(named: RowsFile, beside: Path) -> tuple[Rows, str]:
    path = beside / named.file
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PlanError(f"cannot read population.rows {path}: {error.strerror}") from error
    except ValueError as error:  # such as a name with a NUL
        raise PlanError(f"cannot read population.rows {str(path)!r}: {error}") from error
    try:
        table = _table(path, data.decode("utf-8-sig"), named)
    except (UnicodeDecodeError, csv.Error) as error:
        raise PlanError(f"{path} is no CSV file in UTF-8: {error}") from error
    digest = hashlib.sha256(data).hexdigest()
    if named.sha256 not in (None, digest):
        raise PlanError(f"{path} is not the file that the plan means: its SHA-256 is {digest}")
    if not table:
        raise PlanError(f"{path} holds no patients: expected a line of names and one for each")
    values = {name: _column(path, name, table) for name in named.units}
    return Rows(values=values, units=dict(named.units)), digest


def _table(path: Path, text: str, named: RowsFile) -> list[dict[str, str]]:
    reader = csv.DictReader(text.splitlines())
    columns = list(reader.fieldnames or [])
    for name in named.units if columns else ():
        if columns.count(name) != 1:
            found = "several columns" if name in columns else "no column"
            raise PlanError(f"{path} has {found} {name}; it has {', '.join(columns)}")
    table = []
    for row in reader:
        if None in row:  # where DictReader puts cells without a column
            raise PlanError(
                f"{path}, line {reader.line_num}: expected {len(columns)} cells, one for each "
                f"name in the first line, found {len(columns) + len(row[None])}"
            )
        table.append(row)
    return table


def _column(path: Path, name: str, table: list[dict[str, str]]) -> np.ndarray:
    found = np.empty(len(table))
    for place, row in enumerate(table):
        try:
            found[place] = float(row[name])
        except (TypeError, ValueError) as error:
            raise PlanError(
                f"{path}, line {place + 2}: expected a number in column {name}, found "
                f"{row[name]!r}; leave out patients of whom something is not known"
            ) from error
        if not np.isfinite(found[place]):
            raise PlanError(f"{path}, line {place + 2}: column {name} is not finite")
    return found
