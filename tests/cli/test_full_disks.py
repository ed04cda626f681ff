"""A disk that fills up in the middle of an import of any kind: a sentence, and nothing half done.

A limit on the size of a file stands for the disk, and what SQLite calls an I/O error then is one of
a disk on which nothing is left.
"""

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtwin_client.at_rest import room
from fedtwin_client.store.timeline import Timeline

from ..client.images.images import ct, nifti, written
from ..client.omop.omop_cdm import as_zip, small
from .test_genes import COLUMNS
from .test_genes import HEAD as VCF_HEAD
from .test_hl7_command import GOOD
from .test_streams import EXPORT, POINT, READINGS
from .test_wrong_records import HEAD, MAPPING, OBSERVATION

Words = tuple[object, ...]
WHOSE = ("--patient", "4711", "--date", "2026-03-01")


def fhir(folder: Path) -> Words:
    (folder / "a.ndjson").write_text(json.dumps(OBSERVATION) + "\n")
    return ("fhir", folder / "a.ndjson")


def table(folder: Path) -> Words:
    (folder / "m.yaml").write_text(MAPPING)
    (folder / "v.csv").write_text(HEAD + "M1,2024-02-01,199\n")
    return ("table", folder / "v.csv", "--mapping", folder / "m.yaml")


def hl7(folder: Path) -> Words:
    (folder / "a.hl7").write_text(GOOD)
    return ("hl7", folder / "a.hl7")


def omop(folder: Path) -> Words:
    return ("omop", as_zip(folder / "c.zip", small()))


def genome(folder: Path) -> Words:
    line = "chr7\t99672916\t.\tT\tC\t.\tPASS\t.\tGT\t0/0\n"
    (folder / "one.vcf").write_text(VCF_HEAD + COLUMNS + line)
    return ("genome", folder / "one.vcf", *WHOSE)


def dicom(folder: Path) -> Words:
    return ("dicom", written(folder / "in", ct(0)), "--identifier-system", "http://h/mrn")


def nifti_mask(folder: Path) -> Words:
    mask = np.zeros((4, 4, 4), dtype=np.uint8)
    mask[1:3] = 1
    path = nifti(folder / "liver.nii", mask, np.eye(4))
    return ("nifti", path, "--labels", "file-names", *WHOSE)


def openmhealth(folder: Path) -> Words:
    (folder / "p.json").write_text(json.dumps(POINT))
    return ("openmhealth", folder / "p.json")


def apple_health(folder: Path) -> Words:
    (folder / "export.xml").write_text(EXPORT)
    return ("apple-health", folder / "export.xml", "--patient", "4711")


def glucose(folder: Path) -> Words:
    (folder / "cgm.csv").write_text(READINGS)
    return ("glucose", folder / "cgm.csv", "--zone", "Europe/Oslo")


SOURCES = (fhir, table, hl7, omop, genome, dicom, nifti_mask, openmhealth, apple_health, glucose)


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def held(home: Path) -> list[str | None]:
    return list(Timeline.open(home / "records").events()["source"].to_pylist())


def timeline_files(home: Path) -> set[str]:
    """What lies there of timelines and of drafts."""
    found = {path for path in (home / "records").rglob("*") if path.is_file()}
    return {path.name for path in found if path.suffix in {".parquet", ".new", ".part"}}


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.__name__)
def test_an_import_of_any_kind_is_done_as_a_whole_or_not_at_all(
    node: Path,
    tmp_path: Path,
    type_in: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    source: Callable[[Path], Words],
) -> None:
    first = (tmp_path / "first.csv", "--mapping", tmp_path / "first.yaml")
    first[0].write_text(HEAD + "M0,2024-02-01,200\n")
    first[2].write_text(MAPPING.replace("visits", "firsts"))
    assert type_in("client", "records", "table", *first, "--home", node).status == 0
    before, files = held(node), timeline_files(node)
    words = ("client", "records", *source(tmp_path), "--home", node)
    for size in (0, 3_000):
        with no_file_above(size), monkeypatch.context() as full:
            full.setattr(room, "_free", lambda _: 0)
            ended = type_in(*words)
        assert (ended.status, "Traceback" in ended.err) == (2, False), ended
        assert "no room is left: free some" in " ".join(ended.err.split()), ended.err
        assert (held(node), timeline_files(node)) == (before, files)
    assert type_in(*words).status == 0
    assert set(before) < set(held(node))
