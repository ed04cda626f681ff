"""Apple Health's `export.xml` (or the `export.zip` it comes in) as a source.

An export is all that the Health app holds of one person, so that it is one record here: a newer
export replaces an older one. It is read twice: first which samples come twice, and when which
device counted; then the samples. Memory stays flat but for 8 bytes a sample and 16 bytes for each
stretch of time in which a preferred device counted steps and the like.
"""

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, cast

from fedtwin_client.records.events import Event
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.reading import UnusableError
from fedtwin_client.records.report import Place
from fedtwin_client.records.source import ByNumber, Desk, OpenSource, Version
from fedtwin_client.records.wearables.health_samples import read_sample
from fedtwin_client.records.wearables.overlaps import Overlaps
from fedtwin_client.records.wearables.xml_stream import Element, read_elements
from fedtwin_protocol.errors import RecordError

Progress = Callable[[int, int], None]
_SAMPLES = {"Record", "Workout"}
_PARTS = {"MetadataEntry", "HeartRateVariabilityMetadataList", "InstantaneousBeatsPerMinute"}
_PARTS |= {"WorkoutEvent", "WorkoutRoute", "FileReference", "WorkoutStatistics", "SensitivityPoint"}
_PARTS |= {"WorkoutActivity", "RightEye", "LeftEye", "Attachment"}
_WHY_NOT = {
    "Me": "what the person says of themself (Me) is not read: the hospital's record says it",
    "ActivitySummary": "a day's summary, which repeats its samples",
    "Correlation": "a Correlation, whose samples also stand alone",
    "ClinicalRecord": "a clinical record: import its FHIR files with 'records fhir'",
}
_OLD_ZONE = re.compile(r" ([+-]\d{4})\Z")


def apple_health_file(
    path: Path,
    *,
    patient: str,
    system: str | None = None,
    prefer: Sequence[str] = (),
    progress: Progress | None = None,
) -> OpenSource:
    """An Apple Health export.

    Args:
        path: `export.xml`, or the zip file it comes in.
        patient: whose export it is.
        system: whose number that is; none: of this source alone.
        prefer: names of sources, best first, for what two devices count at once; parts of names
            will do. Those not named come after: first watches, then telephones, then others.
        progress: told bytes read and bytes to read, now and then.

    Raises:
        RecordError: there is no such file.
    """
    if not path.is_file():
        raise RecordError(f"expected an Apple Health export, found no file {path}")
    return lambda desk: AppleHealth(path, Identity(system or "", patient), prefer, desk, progress)


class AppleHealth(ByNumber):
    """Reads one export.

    Attributes:
        title: what is imported, in words.
    """

    def __init__(
        self,
        path: Path,
        identity: Identity,
        prefer: Sequence[str],
        desk: Desk,
        progress: Progress | None,
    ) -> None:
        self.title = "an Apple Health export"
        self._path = path
        self._reading = desk.reading
        named = identity._replace(system=identity.system or desk.reading.source)
        self._subject = desk.pseudonyms.of(named)
        self._overlaps = Overlaps(prefer)
        self._progress = progress
        self._exported: datetime | None = None
        self._used = 0

    def versions(self) -> Iterator[Version]:
        """The export's one version.

        Raises:
            RecordError: the file is no whole export, or holds nothing of use.
        """
        root = ""
        for element in self._elements(0):
            root = root or element.name
            if root != "HealthData":
                raise RecordError(
                    f"expected Apple Health's export (HealthData), found {root[:40]} in "
                    f"{self._path}; nothing was imported"
                )
            if element.name == "ExportDate":
                self._exported = self._time(element.attributes.get("value"))
            elif element.name == "Record" and element.parent == "HealthData":
                self._overlaps.learn(element.attributes)
        self._overlaps.settle()
        origin = f"{self._reading.source}:export/{self._subject}"
        yield Version(origin=origin, updated=self._exported, events=self._events(origin))
        if not self._used:
            raise RecordError(
                f"found no sample in {self._path} that can be used"
                f"{self._reading.tally.commonest()}; nothing was imported"
            )

    def _time(self, written: str | None) -> datetime | None:
        try:
            return self._reading.moment(_OLD_ZONE.sub(r"\1", written)).start if written else None
        except UnusableError:
            return None

    def _events(self, origin: str) -> Iterator[Event]:
        for element in self._elements(1):
            place = Place(self._path.name, element.line)
            if element.name in _PARTS or element.name in {"HealthData", "ExportDate"}:
                continue
            if element.parent == "Correlation":
                continue  # they stand alone, too, as Apple's own DTD says
            if element.name not in _SAMPLES:
                reason = _WHY_NOT.get(element.name, f"{element.name[:40]} is not read")
                self._reading.tally.skip(reason, place)
                continue
            self._reading.tally.read["samples"] += 1
            try:
                event = self._sample(element, origin)
            except UnusableError as error:
                self._reading.unusable(error, place, element.attributes)
                continue
            self._used += 1
            yield event

    def _sample(self, element: Element, origin: str) -> Event:
        attributes = element.attributes
        if element.name == "Record":
            again = self._overlaps.why_not(attributes)
            if again is not None:
                raise UnusableError(again, wrong=False)
        return read_sample(element, self._subject, f"{origin}#{element.line}", self._reading)

    def _elements(self, turn: int) -> Iterator[Element]:
        """The elements of the file; the second time they are told from the first by progress."""
        with _open_export(self._path) as (stream, size):
            told = self._progress
            report = None
            if told is not None:
                done = told
                report = lambda read: done(turn * size + read, 2 * size)  # noqa: E731
            yield from read_elements(stream, self._path.name, report)


@contextmanager
def _open_export(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """The export's bytes and how many there are, out of the zip file if it is one."""
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as stream:
                yield stream, path.stat().st_size
            return
        with zipfile.ZipFile(path) as whole:
            inside = [
                item
                for item in whole.infolist()
                if item.filename.count("/") == 1
                and item.filename.endswith(".xml")
                and not item.filename.endswith("_cda.xml")
            ]
            if len(inside) != 1:
                raise RecordError(
                    f"expected one export.xml in {path}, found {len(inside)}; unpack it and name "
                    "the file. Nothing was imported"
                )
            with whole.open(inside[0]) as packed:
                yield cast("BinaryIO", packed), inside[0].file_size
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise RecordError(f"cannot read {path}: {error}; nothing was imported") from error
    except RuntimeError as error:  # zipfile's word for a password
        raise RecordError(f"cannot read {path}: {error}; nothing was imported") from error
