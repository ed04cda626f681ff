"""`doors.yaml` in the node's folder: which doors stand open for live records.

doors:
laboratory:                  # the name, with which every event's source starts
kind: mllp                 # mllp, mqtt, fhir-post, fhir-poll or dicom
zone: Europe/Zurich        # of times that name none; default UTC
port: 2575                 # the kind's own settings
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from fedtwin_client.listening import OpenedDoor
from fedtwin_client.records.door import Door
from fedtwin_client.records.moments import read_zone
from fedtwin_client.records.report import Recipe
from fedtwin_client.records.source import check_source_name
from fedtwin_protocol.contract import faults
from fedtwin_protocol.errors import ConfigurationError, FedtwinError
from fedtwin_protocol.strict_yaml import load_strictly

FILE: Final = "doors.yaml"
Clock = Callable[[], datetime]
_Settings = TypeVar("_Settings")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Given:
    """A door's settings as they were written, and the folder that relative paths start from."""

    name: str
    zone: str
    settings: dict[str, Any]
    folder: Path
    clock: Clock

    def opened(self, door: Door, recipe: Recipe | None = None) -> OpenedDoor:
        """The door, with how what it puts aside is read again."""
        return OpenedDoor(door=door, zone=self.zone, recipe=recipe)

    def read(self, kind: type[_Settings], settings: Mapping[str, Any] | None = None) -> _Settings:
        """The settings as a kind's own, each checked.

        Raises:
            ConfigurationError: one is unknown, absent or of another type.
        """
        strict = with_config(ConfigDict(extra="forbid"))(kind)
        try:
            given = self.settings if settings is None else settings
            return TypeAdapter(strict).validate_python(given)
        except ValidationError as error:
            raise ConfigurationError(faults(error)) from error


def read_doors(folder: Path, clock: Clock) -> dict[str, OpenedDoor]:
    """The doors of a node, checked and not yet open.

    Args:
        folder: the node's.
        clock: the time, aware.

    Raises:
        ConfigurationError: there is no such file, or something in it is wrong; names the door and
            the setting.
    """
    path = folder / FILE
    try:
        value = load_strictly(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"there is no {path}: it says where live records come from; docs/sources/live.md has "
            "an example"
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path} cannot be used: {error}") from error
    doors = value.get("doors") if isinstance(value, dict) else None
    if not isinstance(doors, dict) or not doors or set(value) != {"doors"}:
        raise ConfigurationError(f"{path}: expected 'doors:' with at least one named door below")
    return {str(name): _door(path, str(name), given, clock) for name, given in doors.items()}


def _door(path: Path, name: str, given: Any, clock: Clock) -> OpenedDoor:
    where = f"{path}: door '{name}'"
    if not isinstance(given, dict):
        raise ConfigurationError(f"{where}: expected its settings below it")
    settings = dict(given)
    kind, zone = settings.pop("kind", None), str(settings.pop("zone", "UTC"))
    opener = _KINDS.get(str(kind))
    if opener is None:
        raise ConfigurationError(f"{where}: kind is one of {', '.join(_KINDS)}, found {kind!r}")
    try:
        check_source_name(name)
        read_zone(zone)
        return opener(
            _Given(name=name, zone=zone, settings=settings, folder=path.parent, clock=clock)
        )
    except FedtwinError as error:
        raise ConfigurationError(f"{where}: {error}") from error


# Each kind's libraries are loaded only where a door is of that kind.
def _mllp(given: _Given) -> OpenedDoor:
    from fedtwin_client.records.hl7.lines import hl7_recipe  # noqa: PLC0415
    from fedtwin_client.records.hl7.mllp import MllpDoor, MllpSettings  # noqa: PLC0415
    from fedtwin_client.records.hl7.patients import Whose  # noqa: PLC0415

    settings = dict(given.settings)
    whose = given.read(Whose, settings.pop("patients", {}))
    how = given.read(MllpSettings, settings)
    recipe = hl7_recipe(given.name, whose, given.zone, how.encoding)
    return given.opened(MllpDoor(given.name, how, whose), recipe)


def _mqtt(given: _Given) -> OpenedDoor:
    from fedtwin_client.records.streams.message_lines import message_recipe  # noqa: PLC0415
    from fedtwin_client.records.streams.mqtt import MqttDoor, MqttSettings  # noqa: PLC0415

    how = given.read(MqttSettings)
    recipe = message_recipe(given.name, how.system, given.zone)
    return given.opened(MqttDoor(how, given.clock, given.name), recipe)


def _fhir_post(given: _Given) -> OpenedDoor:
    from fedtwin_client.records.fhir.lines import fhir_recipe  # noqa: PLC0415
    from fedtwin_client.records.fhir.post import PostDoor, PostSettings  # noqa: PLC0415

    how = given.read(PostSettings)
    recipe = fhir_recipe(given.name, how.system, given.zone, joins=False)
    return given.opened(PostDoor(how, given.clock, given.name), recipe)


def _fhir_poll(given: _Given) -> OpenedDoor:
    from fedtwin_client.fhir_import import PollSettings, opened_poll  # noqa: PLC0415
    from fedtwin_client.node.home import NodeHome  # noqa: PLC0415
    from fedtwin_client.records.fhir.lines import fhir_recipe  # noqa: PLC0415

    home = NodeHome(folder=given.folder)
    how = given.read(PollSettings)
    recipe = fhir_recipe(given.name, how.systems, given.zone)
    return given.opened(opened_poll(home, given.name, how, given.clock), recipe)


def _dicom(given: _Given) -> OpenedDoor:
    from fedtwin_client.records.images.dicom_door import DicomDoor, DicomSettings  # noqa: PLC0415
    from fedtwin_client.records.images.dicom_series import Whose  # noqa: PLC0415
    from fedtwin_client.store.images import image_store  # noqa: PLC0415

    settings = dict(given.settings)
    whose = given.read(Whose, settings.pop("patients", {"system": None}))
    images = image_store(given.folder / "records")
    return given.opened(DicomDoor(given.name, given.read(DicomSettings, settings), images, whose))


_KINDS: Final[dict[str, Callable[[_Given], OpenedDoor]]] = {
    "mllp": _mllp,
    "mqtt": _mqtt,
    "fhir-poll": _fhir_poll,
    "fhir-post": _fhir_post,
    "dicom": _dicom,
}
