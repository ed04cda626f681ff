"""Published releases: one folder each, complete or not there."""

import json
import shutil
from pathlib import Path

from fedtwin_protocol.canonical import sha256_hex
from fedtwin_protocol.errors import ConfigurationError, WireError
from fedtwin_protocol.release import LISTED, STATEMENT
from fedtwin_protocol.signing import envelope_from_bytes
from fedtwin_protocol.study import plan_from_bytes
from fedtwin_protocol.v1 import exchange_pb2 as pb


class ReleaseShelf:
    """A folder of releases, `<study>/<version>/`.

    Args:
        folder: made if absent.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def put(self, study: str, version: int, files: dict[str, bytes]) -> Path:
        """Publish a release; it appears whole or not at all.

        Raises:
            ConfigurationError: that version is published already.
        """
        target = self._folder / study / str(version)
        if target.exists():
            if {path.name: path.read_bytes() for path in target.iterdir()} == files:
                return target  # a publication that was cut short goes on
            raise ConfigurationError(
                f"{study} version {version} is published already: raise 'version' in the plan"
            )
        draft = target.with_name(f".{version}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for name, data in files.items():
            (draft / name).write_bytes(data)
        draft.rename(target)
        return target

    def entries(self, role: str) -> list[pb.ReleaseEntry]:
        """What a role may fetch, by study and version."""
        found = []
        for path in sorted(self._folder.glob("[!.]*/[0-9]*/statement.json")):
            if role in self._readers(path.parent):
                statement = json.loads(envelope_from_bytes(path.read_bytes()).body)
                found.append(
                    pb.ReleaseEntry(
                        study=path.parent.parent.name,
                        version=int(path.parent.name),
                        created=str(statement.get("created", "")),
                        statement_sha256=sha256_hex(path.read_bytes()),
                    )
                )
        return found

    def file(self, path: str, role: str) -> Path:
        """One file of a release, `<study>/<version>/<name>`.

        Raises:
            WireError: there is none, or it is not for that role.
        """
        study, _, rest = path.partition("/")
        version, _, name = rest.partition("/")
        for entry in self.entries(role):
            if (entry.study, str(entry.version)) == (study, version):
                place = self._folder / entry.study / str(entry.version) / name
                if name in (*LISTED, STATEMENT) and place.is_file():
                    return place
        raise WireError(f"there is no {path[:200]} for a {role}")

    def _readers(self, folder: Path) -> tuple[str, ...]:
        envelope = envelope_from_bytes((folder / "plan.json").read_bytes())
        return plan_from_bytes(envelope.body).readers
