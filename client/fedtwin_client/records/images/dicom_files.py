"""DICOM files as a source: images of a folder become series, and each series one event."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fedtwin_client.records.images.dicom import Found, Intake
from fedtwin_client.records.images.dicom_reading import find_dicom, read_header
from fedtwin_client.records.images.dicom_series import Whose
from fedtwin_client.records.images.store import ImageStore
from fedtwin_client.records.reading import UnusableError
from fedtwin_client.records.report import Place
from fedtwin_client.records.source import ByNumber, OpenSource, Version
from fedtwin_protocol.errors import RecordError


def dicom_files(
    paths: Sequence[Path],
    images: ImageStore,
    whose: Whose,
    *,
    link: bool = False,
    told: Callable[[int, int], None] = lambda *_: None,
) -> OpenSource:
    """DICOM files as a source.

    Args:
        paths: files, folders and DICOMDIR files.
        images: where the images go.
        whose: how patients are known.
        link: leave the images where they are, and keep only where that is.
        told: is told how many files are done, and of how many.

    Raises:
        RecordError: a path is not there, or there is no file.
    """
    try:
        files, absent = find_dicom(paths)
    except OSError as error:
        raise RecordError(f"cannot read {error.filename}: {error.strerror}") from error
    except UnusableError as error:
        raise RecordError(f"cannot use the DICOMDIR: {error.reason}") from error
    if not files and not absent:
        raise RecordError(f"found no file in {', '.join(map(str, paths[:5]))}")
    return lambda desk: DicomFiles(files, absent, Intake(desk, images, whose), link, told)


class DicomFiles(ByNumber):
    """Reads headers first, to know series and whose they are, then the images series by series.

    Attributes:
        title: what is imported, in words.
    """

    def __init__(
        self,
        files: Sequence[Path],
        absent: Sequence[Path],
        intake: Intake,
        link: bool,
        told: Callable[[int, int], None],
    ) -> None:
        self.title = f"{len(files)} DICOM files"
        self._files = files
        self._absent = absent
        self._intake = intake
        self._link = link
        self._told = told
        self._done = 0
        self._reading = intake.desk.reading

    def versions(self) -> Iterator[Version]:
        """One version for each series, when all its images are kept.

        Raises:
            RecordError: nothing can be used, or the image store cannot be written.
        """
        tally = self._reading.tally
        for path in self._absent:
            tally.read["file"] += 1
            tally.put_aside("named in a DICOMDIR and not there", Place(path.name, 1), str(path))
        used = 0
        for group in self._series():
            version = None
            for path, found in group:
                taken = self._take(path, found)
                if taken is not None and found.outlines:  # each a record of its own
                    used += 1
                    yield taken
                else:
                    version = taken or version
            if version is not None:
                used += 1
                yield version
        if not used:
            raise RecordError(
                f"found no DICOM image that can be used among {len(self._files)} files"
                f"{tally.commonest()}; nothing was imported"
            )

    def _series(self) -> Iterator[list[tuple[Path, Found]]]:
        groups: dict[str, list[tuple[Path, Found]]] = defaultdict(list)
        for path in self._files:
            self._reading.tally.read["file"] += 1
            try:
                found = self._intake.find(read_header(path), str(path.parent.resolve()))
            except UnusableError as error:
                self._unusable(path, error)
                continue
            groups[found.series].append((path, found))
        for group in sorted(groups.values(), key=_outlines):
            if len({found.identity for _, found in group}) > 1:
                mixed = UnusableError("a series with images of several patients")
                for path, _ in group:
                    self._unusable(path, mixed)
                continue
            yield group

    def _take(self, path: Path, found: Found) -> Version | None:
        self._told(self._done, len(self._files))
        self._done += 1
        try:
            data = path.read_bytes()
            return self._intake.take(
                found, data, Place(path.name, 1), link=path if self._link else None
            )
        except UnusableError as error:
            self._unusable(path, error)
        except OSError as error:
            self._unusable(path, UnusableError(f"cannot be read: {error.strerror}"))
        return None

    def _unusable(self, path: Path, error: UnusableError) -> None:
        self._reading.unusable(error, Place(path.name, 1), str(path))


def _outlines(group: list[tuple[Path, Found]]) -> bool:
    """Segmentations come last, when what they outline is here."""
    return group[0][1].outlines
