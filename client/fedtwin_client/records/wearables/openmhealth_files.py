"""Files of Open mHealth and IEEE 1752.1 data points as a source."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fedtwin_client.records.json_files import find_json, read_items
from fedtwin_client.records.source import ByNumber, Desk, OpenSource, Version
from fedtwin_client.records.wearables.openmhealth import PointReader
from fedtwin_client.records.whole import Whole
from fedtwin_protocol.errors import RecordError

Progress = Callable[[int, int], None]


def openmhealth_files(
    paths: Sequence[Path],
    *,
    patient: str | None = None,
    system: str | None = None,
    progress: Progress | None = None,
) -> OpenSource:
    """Data points in files.

    Args:
        paths: files and folders: single points, lists, NDJSON, also gzipped.
        patient: whose points they all are; without it, each point's `user_id` says so.
        system: whose number that is; none: of this source alone.
        progress: told files read and files to read.

    Raises:
        RecordError: there is no such file.
    """
    files = find_json(paths, "data points")
    return lambda desk: OpenmhealthFiles(files, Owner(patient, system), desk, progress)


class Owner(NamedTuple):
    """Whose points they are, if that was said, and whose numbers name patients."""

    patient: str | None
    system: str | None


class OpenmhealthFiles(ByNumber):
    """Reads data points from files.

    Attributes:
        title: what is imported, in words.
    """

    def __init__(
        self, files: Sequence[Path], owner: Owner, desk: Desk, progress: Progress | None
    ) -> None:
        self.title = f"{len(files)} files of data points"
        self._files = files
        self._tally = desk.reading.tally
        self._tally.tell_apart(files)
        self._progress = progress
        system = owner.system or desk.reading.source
        self._whole = Whole(self._tally)
        reading = desk.reading.at(desk.reading.now, self._whole)
        self._reader = PointReader(reading, desk.pseudonyms, system, owner.patient)

    def versions(self) -> Iterator[Version]:
        """Every data point.

        Raises:
            RecordError: a file cannot be read, or none holds anything of use.
        """
        used = 0
        for number, file in enumerate(self._files):
            if self._progress is not None:
                self._progress(number, len(self._files))
            for item in read_items(file, self._tally):
                for version in self._reader.read(item.value, item.place):
                    events = list(version.events)
                    used += len(events)
                    yield Version(origin=version.origin, updated=version.updated, events=events)
                self._whole.end(item.place, item.value)
        if not used:
            raise RecordError(
                f"found no data point that can be used in {len(self._files)} files"
                f"{self._tally.commonest()}; nothing was imported"
            )
