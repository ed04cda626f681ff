"""NIfTI volumes as a source: images are kept, label maps also measured.

An image makes the event of a series (see `dicom.py`), a label map one event for each structure in
it (see `structures.py`). The file does not say whose it is or when it was taken: that is given.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedtwin_client.records.images.dicom import series_version
from fedtwin_client.records.images.dicom_series import MODALITIES
from fedtwin_client.records.images.nifti_reading import (
    LARGEST_BYTES,
    Nifti,
    cleaned,
    labels_from,
    on_grid,
    read_nifti,
)
from fedtwin_client.records.images.store import ImageStore
from fedtwin_client.records.images.structures import (
    Structure,
    counts,
    read_structures,
    structure_named,
    volume_event,
)
from fedtwin_client.records.images.volumes import grid_of_series
from fedtwin_client.records.people import People
from fedtwin_client.records.reading import Times, UnusableError
from fedtwin_client.records.report import Place
from fedtwin_client.records.source import ByNumber, Desk, OpenSource, Version
from fedtwin_protocol.errors import RecordError

FROM_FILE_NAMES: Final = "file-names"
_ABSENT: Final = "a structure with no voxel in the label map"


@dataclass(frozen=True, kw_only=True, slots=True)
class NiftiOptions:
    """What files are that do not say it.

    Attributes:
        modality: DICOM's term, for images; none: label maps.
        labels: the table of a label map: a built-in one, a CSV file, or `file-names` where each
            file is the mask of the structure that it is called by; none: the file's own table.
        segments: the series that was outlined, by its name in the store.
    """

    modality: str | None = None
    labels: str | None = None
    segments: str | None = None


def nifti_files(
    paths: Sequence[Path], images: ImageStore, people: People, options: NiftiOptions
) -> OpenSource:
    """NIfTI files of one patient and one time as a source.

    Args:
        paths: `.nii` or `.nii.gz`.
        images: where they go.
        people: whose they are; `one` is set.
        options: what they are.

    Raises:
        RecordError: the options do not go together, or the table of labels cannot be read.
    """
    if options.modality is not None:
        if options.labels or options.segments:
            raise RecordError("give --modality for images, or --labels and --of for label maps")
        if options.modality not in MODALITIES:
            raise RecordError(
                f"expected a modality such as CT, MR or PT, found '{options.modality[:20]}'"
            )
    table = None
    if options.labels not in {None, FROM_FILE_NAMES}:
        table = read_structures(str(options.labels))
    return lambda desk: NiftiFiles(paths, images, people, options, table, desk)


class NiftiFiles(ByNumber):
    """Reads file after file; each is one version.

    Attributes:
        title: what is imported, in words.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        images: ImageStore,
        people: People,
        options: NiftiOptions,
        table: Mapping[int, Structure] | None,
        desk: Desk,
    ) -> None:
        self.title = f"{len(paths)} NIfTI files"
        self._paths = paths
        self._images = images
        self._people = people
        self._options = options
        self._table = table
        self._desk = desk
        self._tally = desk.reading.tally

    def versions(self) -> Iterator[Version]:
        """One version for each file.

        Raises:
            RecordError: nothing can be used, or the image store cannot be written.
        """
        assert self._people.one is not None
        times = self._people.times(self._desk, self._people.one)
        subject = self._people.subject(self._desk, self._people.one)
        used = 0
        for path in self._paths:
            self._tally.read["file"] += 1
            try:
                version = self._version(path, subject, times)
            except UnusableError as error:
                self._desk.reading.unusable(error, Place(path.name, 1), str(path))
                continue
            used += 1
            yield version
        if not used:
            raise RecordError(
                f"found no NIfTI volume that can be used in "
                f"{', '.join(map(str, self._paths[:5]))}{self._tally.commonest()}; nothing was "
                "imported"
            )

    def _version(self, path: Path, subject: int, times: Times) -> Version:
        nifti = read_nifti(_bytes_of(path))
        for remark in nifti.remarks:
            self._tally.note(remark, Place(path.name, 1))
        stem = path.name.removesuffix(".gz").removesuffix(".nii")
        told = f"{subject}\n{times.time.isoformat()}\n{stem}"
        series = self._desk.pseudonyms.keyed("image series", f"nifti\n{told}")
        if self._options.modality is not None:
            return self._image(nifti, subject, series, times)
        return self._labels(nifti, path, subject, series, times)

    def _image(self, nifti: Nifti, subject: int, series: str, times: Times) -> Version:
        about: dict[str, Any] = {
            "kind": "nifti",
            "modality": self._options.modality,
            "body_part": None,
            "time": times.time.isoformat(),
            "available": times.available_time.isoformat(),
            "flags": [],
        }
        self._keep(subject, series, cleaned(nifti, nifti.values()), about)
        return series_version(self._desk.reading.source, subject, series, about)

    def _labels(self, nifti: Nifti, path: Path, subject: int, series: str, times: Times) -> Version:
        place = Place(path.name, 1)
        labels = labels_from(nifti)
        table = self._structures(nifti, path)
        self._check_fit(labels, nifti, subject)
        found = counts(labels)
        unnamed = sorted(found.keys() - table.keys())
        for label in unnamed:
            raw = f"{path}: {found[label]} voxels of label {label}"
            self._tally.put_aside("a label that its table does not name", place, raw)
        self._tally.read["structure"] += len(table) + len(unnamed)
        origin = f"{self._desk.reading.source}:label-map/{series}"
        events = []
        for label, structure in sorted(table.items()):
            if label not in found:
                self._tally.skip(_ABSENT, place)
                continue
            volume = found[label] * nifti.voxel_mm3
            events.append(volume_event(origin, label, subject, times, structure.code, volume))
        about: dict[str, Any] = {
            "kind": "nifti labels",
            "of": self._options.segments,
            "flags": [],
            "structures": {str(label): table[label].code for label in sorted(found.keys() & table)},
        }
        self._keep(subject, series, cleaned(nifti, labels), about)
        return Version(origin=origin, updated=None, events=events)

    def _structures(self, nifti: Nifti, path: Path) -> Mapping[int, Structure]:
        if self._table is not None:
            return self._table
        if self._options.labels == FROM_FILE_NAMES:
            name = path.name.removesuffix(".gz").removesuffix(".nii")
            structure = structure_named(name)
            if structure is None:
                raise UnusableError("its name is no structure of the built-in tables of labels")
            return {1: structure}
        if not nifti.names:
            raise UnusableError("no table of labels in the file: give one with --labels")
        named = {label: structure_named(name) for label, name in nifti.names.items()}
        return {label: known for label, known in named.items() if known is not None}

    def _check_fit(self, labels: np.ndarray, nifti: Nifti, subject: int) -> None:
        segments = self._options.segments
        if segments is None:
            return
        grid = grid_of_series(self._images, subject, segments)
        if grid is None:
            raise UnusableError("the series that --of names is not here for this patient")
        if on_grid(labels, nifti.grid, grid) is None:
            raise UnusableError(
                "it does not fit the series that --of names: another size, spacing, place or "
                "direction"
            )

    def _keep(self, subject: int, series: str, data: bytes, about: dict[str, Any]) -> None:
        self._images.replace(subject, series, f"{series}.nii", data)
        self._images.describe(subject, series, about)


def _bytes_of(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise UnusableError("larger than 2 GiB")
        return path.read_bytes()
    except OSError as error:
        raise UnusableError(f"cannot be read: {error.strerror}") from error
