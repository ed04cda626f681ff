"""Moving images from one pseudonym to another, for patients who turned out to be one person.

A series is first made whole at its new place, under a name that nobody looks for, and then gets its
own name in one step; only then the old files go. Whoever opens it meanwhile finds the old or the
new one, and a kill at any moment loses nothing: the next move goes on. Files that came to the old
place meanwhile are moved in another turn.
"""

import json
import os
import shutil
from collections.abc import Collection, Iterable
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from fedtwin_client.records.images.store import PART, ImageStore, settle
from fedtwin_client.records.reading import UnusableError
from fedtwin_protocol.errors import RecordError

_MOVING: Final = ".moving"
_TURNS: Final = 100


def move_images(
    images: ImageStore, subject: int, into: int, series: Collection[str] | None = None
) -> int:
    """Give a patient's series to another pseudonym; their headers name it from then on.

    Args:
        images: the node's.
        subject: the pseudonym whose they are.
        into: the pseudonym whose they will be.
        series: their names; none: all.

    Returns:
        How many series were moved.

    Raises:
        RecordError: the disk refuses; nothing is lost, and the next move goes on.
        ConfigurationError: a file does not open.
    """
    place = images.place(subject, "")
    moved = 0
    try:
        for folder in sorted(place.iterdir()) if place.is_dir() else ():
            if folder.name.endswith(_MOVING):
                shutil.rmtree(folder)  # a move that was cut off, of a series that is still whole
            elif series is None or folder.name in series:
                _move_series(images, folder, images.place(into, folder.name), into)
                moved += 1
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()
    except OSError as error:
        raise RecordError(
            f"cannot move the images {place}: {error.strerror}; free space or mend the disk, then "
            "import anything, which goes on with it"
        ) from error
    return moved


def _move_series(images: ImageStore, folder: Path, target: Path, into: int) -> None:
    for _ in range(_TURNS):
        files = _files(folder)
        if not target.exists():
            _move_whole(images, files, target, into)
        else:
            _move_beside(images, files, target, into)
        for path in reversed(files):  # without its description nobody looks for the rest
            path.unlink()
        for path in folder.glob(f"*{PART}"):
            path.unlink()
        if not _files(folder):
            folder.rmdir()
            settle(folder.parent)
            return
    raise OSError(None, "new images come in faster than they can be moved")


def _files(folder: Path) -> list[Path]:
    """What is to be moved, the description last."""
    found = (path for path in folder.iterdir() if not path.name.endswith(PART))
    return sorted(found, key=lambda path: (path.suffix == ".json", path.name))


def _move_whole(images: ImageStore, files: Iterable[Path], target: Path, into: int) -> None:
    draft = target.with_name(target.name + _MOVING)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700, parents=True)
    for path in files:
        _copy(images, path, draft / path.name, into)
    settle(draft)
    draft.rename(target)
    settle(target.parent)


def _move_beside(images: ImageStore, files: Iterable[Path], target: Path, into: int) -> None:
    """Of the other pseudonym some of the series is there already."""
    for path in files:
        there = target / path.name
        if not there.exists():
            _copy(images, path, there, into)
        elif path.suffix == ".json":
            both = json.loads(images.opened(there)), json.loads(images.opened(path))
            images.write(there, json.dumps(_described(*both), sort_keys=True).encode())
    settle(target)


def _copy(images: ImageStore, path: Path, target: Path, into: int) -> None:
    if path.suffix != ".dcm":
        os.link(path, target)
        return
    images.write(target, _renamed(images.opened(path), f"{into:016x}"))


def _renamed(data: bytes, patient: str) -> bytes:
    """A file whose header names another Patient ID."""
    from fedtwin_client.records.images.dicom_reading import read_dataset  # noqa: PLC0415 - pydicom

    try:
        dataset = read_dataset(data)
    except UnusableError:
        return data  # it was kept by another version of this program; better as it is than lost
    dataset.PatientID = patient
    written = BytesIO()
    dataset.save_as(written, enforce_file_format=True)
    return written.getvalue()


def _described(there: dict[str, Any], moved: dict[str, Any]) -> dict[str, Any]:
    """What a series is of which both had a part: it began with the first image of either."""
    joined = moved | there
    for key, of in (("time", min), ("available", max)):
        if key in there and key in moved:
            joined[key] = of(there[key], moved[key], key=datetime.fromisoformat)
    if "flags" in there and "flags" in moved:
        joined["flags"] = sorted({*there["flags"], *moved["flags"]})
    return joined
