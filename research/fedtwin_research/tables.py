"""Patients and records in CSV files, and predictions written to one.

An empty cell is missing. A cell that reads as a number is one, except in columns of categories;
what it should have been is said by those who check it (`columns`, `patient_records`).
"""

import csv
import io
import math
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from fedtwin_protocol.contract import FeatureContract
from fedtwin_protocol.errors import ReleaseError
from fedtwin_research.population import Value
from fedtwin_research.prediction import Prediction

Cell = float | str | None


def read_patients(path: Path, contract: FeatureContract) -> dict[str, list[Cell]]:
    """The columns of a file of patients, one a line below the names.

    Raises:
        ReleaseError: it cannot be read, or is no table; says which line.
    """
    texts = [feature.name for feature in contract.features if feature.kind == "category"]
    return _read(path, texts)


def read_records(path: Path) -> dict[str, list[Cell]]:
    """The columns of a file of records: patient, code, value, unit, days_before.

    Raises:
        ReleaseError: it cannot be read, or is no table; says which line.
    """
    return _read(path, ("code", "unit"), may_be_empty=True)


def prediction_table(prediction: Prediction) -> str:
    """Predictions as CSV: one patient a line, in the order they came; empty for who is excluded."""
    unit = f" [{prediction.unit}]" if prediction.kind == "value" else ""
    days = [f"probability by day {end}" for end in prediction.days]
    if prediction.central_90.size:
        days += [f"{end} of nine in ten{unit}" for end in ("low end", "high end")]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([f"{prediction.kind}{unit}", *days])
    beside = np.concatenate([prediction.risk_over_time, prediction.central_90], axis=1)
    for value, risks in zip(prediction, beside.tolist(), strict=True):
        writer.writerow(["" if math.isnan(one) else f"{one:.6g}" for one in (value, *risks)])
    return table.getvalue()


def population_csv(values: Iterable[Value]) -> str:
    """Population values as CSV: name, value, standard error, 95 % interval, known before, unit."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["name", "value", "standard_error", "low", "high", "known_before", "unit"])
    for one in values:
        before = "" if one.known_before is None else f"{one.known_before:.8g}"
        numbers = [f"{number:.8g}" for number in (one.mean, one.sd, *one.interval)]
        writer.writerow([one.name, *numbers, before, one.unit])
    return table.getvalue()


def _read(path: Path, texts: Collection[str], may_be_empty: bool = False) -> dict[str, list[Cell]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [line for line in csv.reader(file, strict=True) if line]
    except OSError as error:
        raise ReleaseError(f"cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ReleaseError(f"{path} is no CSV file in UTF-8: {error}") from error
    if not lines or not (may_be_empty or lines[1:]):
        raise ReleaseError(
            f"{path} holds no {'patients' if lines else 'names of columns in its first line'}"
        )
    names = [name.strip() for name in lines[0]]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ReleaseError(f"{path} names a column twice: {', '.join(twice)}")
    for row, line in enumerate(lines[1:]):
        if len(line) != len(names):
            raise ReleaseError(
                f"{path}, row {row} (counted from 0 below the names): expected {len(names)} cells, "
                f"found {len(line)}"
            )
    return {
        name: [_cell(line[place], name in texts) for line in lines[1:]]
        for place, name in enumerate(names)
    }


def _cell(text: str, is_text: bool) -> Cell:
    stripped = text.strip()
    if not stripped:
        return None
    if is_text:
        return stripped
    try:
        return float(stripped)
    except ValueError:
        return stripped
