"""The folder of a trial: report, tables, the plan as it was written, and a manifest with hashes."""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Final

from fedtwin_protocol.credentials import write_atomically
from fedtwin_protocol.errors import ConfigurationError
from fedtwin_research.trials.page import trial_page
from fedtwin_research.trials.reading import ReadPlan
from fedtwin_research.trials.running import Finished
from fedtwin_research.trials.tables import (
    arms_table,
    effects_table,
    replicates_table,
    sizes_table,
    subgroups_table,
    what_if_table,
)
from fedtwin_twins.trials import ancestry

MANIFEST: Final = "manifest.json"
_FORMAT: Final = "fedtwin-trial/1"
_LIBRARIES: Final = ("fedtwin", "numpy", "scipy", "torch")


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A model that took part.

    Attributes:
        name: of the model.
        version: of the card.
        sha256: of the card's content.
        open_questions: what its paper leaves open and what nobody has checked, sentences.
    """

    name: str
    version: str
    sha256: str
    open_questions: tuple[str, ...] = ()


def trial_files(read: ReadPlan, finished: Finished, cards: tuple[Card, ...]) -> dict[str, bytes]:
    """Every file of the folder by name; the same trial gives the same bytes."""
    facts = _facts(read, finished, cards)
    found = {
        "report.html": trial_page(finished, _hashes(facts), _open(cards)).encode(),
        "arms.csv": arms_table(finished).encode(),
        "subgroups.csv": subgroups_table(finished).encode(),
        "effects.csv": effects_table(finished).encode(),
        "replicates.csv": replicates_table(finished).encode(),
        "what_if.csv": what_if_table(finished).encode(),
        "sample_size.csv": sizes_table(finished).encode(),
        "plan.yaml": read.text,
    }
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}
    manifest = {"format": _FORMAT, **facts, "files": digests}
    text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return {**found, MANIFEST: (text + "\n").encode()}


def _open(cards: tuple[Card, ...]) -> list[str]:
    return [f"{card.name}: {line}" for card in cards for line in card.open_questions]


def _facts(read: ReadPlan, finished: Finished, cards: tuple[Card, ...]) -> dict[str, object]:
    table = (files(ancestry.__package__) / "tables" / ancestry.TABLE).read_bytes()
    return {
        "plan_sha256": finished.plan.digest,
        "seed": finished.plan.seed,
        "cards": {card.name: {"version": card.version, "sha256": card.sha256} for card in cards},
        "allele_frequencies": {ancestry.TABLE: hashlib.sha256(table).hexdigest()},
        "rows_sha256": read.rows_sha256,
        "software": {
            "python": platform.python_version(),
            "machine": platform.machine(),
            **{name: version(name) for name in _LIBRARIES},
        },
    }


def _hashes(facts: Mapping[str, object]) -> list[tuple[str, str]]:
    found = [("Plan, in canonical form (SHA-256)", str(facts["plan_sha256"]))]
    for kind, title in (("cards", "Model card"), ("allele_frequencies", "Allele frequencies")):
        inside = facts[kind]
        assert isinstance(inside, dict)
        for name, what in inside.items():
            text = f"version {what['version']}, {what['sha256']}" if kind == "cards" else what
            found.append((f"{title} {name}", text))
    if facts["rows_sha256"]:
        found.append(("Rows that patients were drawn from (SHA-256)", str(facts["rows_sha256"])))
    software = facts["software"]
    assert isinstance(software, dict)
    found.append(("Software", ", ".join(f"{name} {it}" for name, it in software.items())))
    return found


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something other than an earlier report, before the work begins.

    Raises:
        ConfigurationError: it does, or it is a file.
    """
    if folder.is_file():
        raise ConfigurationError(f"{folder} is a file: name a folder with --out")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise ConfigurationError(
            f"{folder} holds other things than a trial's report: name a new folder with --out"
        )


def write_folder(folder: Path, found: Mapping[str, bytes]) -> None:
    """Write all files; the manifest last.

    Raises:
        ConfigurationError: a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in found.items():
            write_atomically(folder / name, data, mode=0o644)
    except OSError as error:
        raise ConfigurationError(f"cannot write {folder}: {error.strerror}") from error
