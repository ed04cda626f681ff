"""The node's own images: `images/` beside the timelines, encrypted, a folder for each patient.

`images/<subject_id, 16 hexadecimal digits>/<series>/` holds the files of one series:
`<series>.json` says what it is, `<instance>.dcm` is a DICOM file with its header de-identified,
`<instance>.link` says where the file lies that was left in its place, and `<series>.nii` is a
NIfTI volume. Series and instances are called by hashes under the site's secret. In a folder
without a keyring they lie plain, readable by the node's user alone.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fedtwin_client.at_rest.files import is_sealed, read_sealed, seal_whole
from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_client.records.reading import UnusableError
from fedtwin_protocol.errors import ConfigurationError, RecordError

FOLDER: Final = "images"
PART: Final = ".part"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageStore:
    """The images of a node.

    Attributes:
        folder: `images/` in the folder of its records.
        keyring: the node's; none: nothing is encrypted.
        erased: pseudonyms of patients who are erased; nothing of theirs is taken in.
    """

    folder: Path
    keyring: Keyring | None
    erased: Callable[[], frozenset[int]] = frozenset

    def place(self, subject: int, series: str) -> Path:
        """The folder of a series."""
        return self.folder / f"{subject:016x}" / series

    def add(self, subject: int, series: str, name: str, data: bytes) -> bool:
        """Keep a file; durable on return.

        Returns:
            Whether it is new; false if the same one is there.

        Raises:
            UnusableError: another file of that name is there, or the patient is erased.
            RecordError: the disk refuses.
        """
        self._refuse_erased(subject)
        path = self.place(subject, series) / name
        if path.exists():
            if hashlib.sha256(self.opened(path)).digest() == hashlib.sha256(data).digest():
                return False
            raise UnusableError("an image that is here already, with other content")
        self.write(path, data)
        self._take_back_erased(subject)
        return True

    def replace(self, subject: int, series: str, name: str, data: bytes) -> None:
        """Keep a file, in place of one of the same name.

        Raises:
            UnusableError: the patient is erased.
            RecordError: the disk refuses.
        """
        self._refuse_erased(subject)
        self.write(self.place(subject, series) / name, data)
        self._take_back_erased(subject)

    def describe(self, subject: int, series: str, about: dict[str, Any]) -> None:
        """Write what a series is, unless that is what stands there.

        Raises:
            UnusableError: the patient is erased.
            RecordError: the disk refuses.
        """
        if self.about(subject, series) != about:
            text = json.dumps(about, sort_keys=True)
            self.replace(subject, series, f"{series}.json", text.encode())

    def about(self, subject: int, series: str) -> dict[str, Any] | None:
        """What a series is; none if it is not here.

        Raises:
            ConfigurationError: it does not open.
        """
        path = self.place(subject, series) / f"{series}.json"
        if not path.exists():
            return None
        found: dict[str, Any] = json.loads(self.opened(path))
        return found

    def whose(self, series: str) -> int:
        """The patient of a series.

        Raises:
            RecordError: there is no such series here.
        """
        if series.isalnum():
            for place in self.folder.glob(f"*/{series}/{series}.json"):
                return int(place.parent.parent.name, 16)
        raise RecordError(
            f"there is no series '{series[:64]}' among the images of this node: name it as the "
            "source of its event does, after 'series/'"
        )

    def names(self, subject: int, series: str) -> list[str]:
        """The names of a series' files, but for its description."""
        place = self.place(subject, series)
        named = (path.name for path in place.iterdir() if not path.name.endswith(PART))
        return sorted(name for name in named if name != f"{series}.json")

    def read(self, subject: int, series: str, name: str) -> bytes:
        """A file of a series; of one that was left in its place, that file.

        Raises:
            RecordError: the file that was left in its place is gone, or is another now.
            ConfigurationError: it does not open.
        """
        data = self.opened(self.place(subject, series) / name)
        return _linked(json.loads(data)) if name.endswith(".link") else data

    def opened(self, path: Path) -> bytes:
        """What a file holds.

        Raises:
            RecordError: the disk refuses.
            ConfigurationError: it does not open.
        """
        try:
            if self.keyring is not None and is_sealed(path):
                return b"".join(read_sealed(path, self.keyring))
            if self.keyring is not None and self.keyring.complete:
                raise ConfigurationError(
                    f"{path} is not encrypted, as all files here are: restore it"
                )
            return path.read_bytes()
        except OSError as error:
            raise RecordError(f"cannot read the image {path}: {error.strerror}") from error

    def write(self, path: Path, data: bytes) -> None:
        """Write a file in one step; durable on return.

        Raises:
            RecordError: the disk refuses.
        """
        draft = path.with_name(path.name + PART)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.keyring is not None:
                seal_whole(draft, data, self.keyring, path.name)
            else:
                handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with os.fdopen(handle, "wb") as plain:
                    plain.write(data)
                    plain.flush()
                    os.fsync(plain.fileno())
            draft.replace(path)
            settle(path.parent)
        except OSError as error:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise RecordError(
                f"cannot keep an image in {self.folder}: {error.strerror}; free space or mend the "
                "disk, then import or send it again"
            ) from error

    def _refuse_erased(self, subject: int) -> None:
        if subject in self.erased():
            raise UnusableError("images of patients who are erased here", wrong=False)

    def _take_back_erased(self, subject: int) -> None:
        """An erasure may have gone by while a file was written."""
        if subject in self.erased():
            remove_images(self.folder.parent, subject)
            raise UnusableError("images of patients who are erased here", wrong=False)


def remove_images(store: Path, subject: int) -> int:
    """Remove the images of a patient.

    Args:
        store: the folder of the node's records.
        subject: the pseudonym.

    Returns:
        How many files there were.

    Raises:
        RecordError: a file cannot be removed.
    """
    place = store / FOLDER / f"{subject:016x}"
    number = sum(1 for path in place.rglob("*") if path.is_file())
    try:
        if place.exists():
            shutil.rmtree(place)
            settle(place.parent)
    except OSError as error:
        raise RecordError(f"cannot remove the images {place}: {error}") from error
    return number


def image_files(store: Path) -> Iterator[Path]:
    """All files of the images, for encrypting them anew; what a kill left half-written goes."""
    for path in sorted((store / FOLDER).rglob("*")):
        if path.name.endswith(PART):
            path.unlink()
        elif path.is_file() and not path.name.endswith(".sealing"):
            yield path


def _linked(link: dict[str, str]) -> bytes:
    path = Path(link["path"])
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(
            f"the image {path}, which was left in its place, cannot be read: {error.strerror}; put "
            "it back, or import it without --link"
        ) from error
    if hashlib.sha256(data).hexdigest() != link["sha256"]:
        raise RecordError(
            f"the image {path}, which was left in its place, is another than when it was imported; "
            "put it back, or import it again"
        )
    return data


def link_to(path: Path, data: bytes) -> bytes:
    """What stands in a `.link` file."""
    link = {"path": str(path.resolve()), "sha256": hashlib.sha256(data).hexdigest()}
    return json.dumps(link, sort_keys=True).encode()


def settle(folder: Path) -> None:
    """Make names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
