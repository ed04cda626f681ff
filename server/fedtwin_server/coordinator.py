"""The coordinator as one process: a home folder, a port, and the studies it carries out.

The home holds `coordinator.yaml`, `fedtwin.sqlite`, `blobs/`, `releases/` and the issuing CA. Two
coordinators on one home would answer for each other, so the second is refused by a file lock.
"""

import asyncio
import fcntl
import logging
import os
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.channel import SERVER_OPTIONS, grpc
from fedtwin_protocol.contract import faults
from fedtwin_protocol.credentials import Credentials
from fedtwin_protocol.errors import ConfigurationError, FedtwinError
from fedtwin_protocol.signing import TrustRoot
from fedtwin_protocol.strict_yaml import load_strictly
from fedtwin_protocol.study import StudyPlan
from fedtwin_server.authority import Authority
from fedtwin_server.catalogue import StudyCatalogue
from fedtwin_server.desk import EnrolmentDesk
from fedtwin_server.guard import Guard
from fedtwin_server.hub import Clock, Hub
from fedtwin_server.log_desk import LogDesk
from fedtwin_server.releases import ReleaseShelf
from fedtwin_server.revocation import IssuedBook, RevocationWatch
from fedtwin_server.rules import MeanRule, Rule, SumRule
from fedtwin_server.secure_run import SecureRun
from fedtwin_server.service import ExchangeService, Rooms
from fedtwin_server.store import LIVE_STATUSES, Store, StudyRecord
from fedtwin_server.study_record import plan_of
from fedtwin_server.study_run import StudyRun
from fedtwin_server.tuf_repository import TufRepository

log = logging.getLogger("fedtwin.coordinator")
LOOK_S: Final = 0.2
PUBLISH_S: Final = 60.0
RETRY_S: Final = 10.0


class CoordinatorSettings(BaseModel):
    """`coordinator.yaml`.

    Attributes:
        consortium: its name.
        addresses: names and numbers under which sites reach the coordinator (in its certificate).
        listen: `host:port` to listen on.
        public: `host:port` that invitations tell sites to dial.
        trust: the signers of plans and releases.
        certificate_hours: life of the certificates it issues.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    consortium: str
    addresses: tuple[str, ...]
    listen: str = Field(pattern=r"^\S+:\d+$")
    public: str = Field(pattern=r"^\S+:\d+$")
    trust: TrustRoot
    certificate_hours: float = Field(default=24, gt=0, le=24 * 14)


@dataclass(frozen=True, kw_only=True, slots=True)
class Home:
    """A coordinator's folder."""

    folder: Path

    @property
    def settings_file(self) -> Path:
        """`coordinator.yaml`."""
        return self.folder / "coordinator.yaml"

    def settings(self) -> CoordinatorSettings:
        """Read `coordinator.yaml`.

        Raises:
            ConfigurationError: it is absent or wrong.
        """
        try:
            value = load_strictly(self.settings_file.read_text(encoding="utf-8"))
            return CoordinatorSettings.model_validate(value)
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"there is no coordinator in {self.folder}: run 'fedtwin server init' first, or "
                "name its folder with --home"
            ) from error
        except ValidationError as error:
            raise ConfigurationError(
                f"{self.settings_file} cannot be used: {faults(error)}"
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
            raise ConfigurationError(f"{self.settings_file} cannot be used: {error}") from error

    def store(self) -> Store:
        """The coordinator's memory.

        Raises:
            ConfigurationError: there is no coordinator here, or its file cannot be used.
        """
        self.settings()
        return Store(self.folder / "fedtwin.sqlite")

    def blobs(self) -> BlobStore:
        """Contents by hash."""
        return BlobStore(self.folder / "blobs")

    def shelf(self) -> ReleaseShelf:
        """Published releases."""
        return ReleaseShelf(self.folder / "releases")


def make_rule(plan: StudyPlan, blobs: BlobStore) -> Rule:
    """The rule that a plan names; Flower is loaded only where a plan wants it."""
    if plan.aggregation.rule == "sum":
        return SumRule(plan, blobs)
    if plan.aggregation.rule == "mean":
        return MeanRule(plan, blobs)
    from fedtwin_server.flower import FlowerRule  # noqa: PLC0415 - a second and 60 MB to import

    return FlowerRule(plan, blobs)


def system_clock() -> datetime:
    """The time of this machine, in UTC."""
    return datetime.now(UTC)


class Coordinator:
    """Serves the exchange and carries studies out until stopped.

    Args:
        home: its folder.
        clock: the time.
    """

    def __init__(self, home: Home, clock: Clock = system_clock) -> None:
        self._lock = _lock(home.folder / "coordinator.lock")
        self._settings = home.settings()
        self._clock = clock
        self._store = home.store()
        self._blobs = home.blobs()
        self._blobs.tidy(clock())
        self._hub = Hub()
        self._authority = Authority.load(home.folder)
        revocation = RevocationWatch(home.folder / "revoked.crl", self._authority.issuer_pem)
        self._issued = IssuedBook(self._store.connection)
        self._issued.publish_if_due(self._authority, clock())
        lifetime = timedelta(hours=self._settings.certificate_hours)
        self._log_desk = LogDesk(
            self._store, home.shelf(), TufRepository(home.folder), self._settings.consortium
        )
        self._rooms = Rooms(
            guard=Guard(self._settings.consortium, revocation, clock),
            hub=self._hub,
            store=self._store,
            blobs=self._blobs,
            catalogue=StudyCatalogue(self._store),
            desk=EnrolmentDesk(self._authority, self._store, self._settings.trust, clock, lifetime),
            shelf=home.shelf(),
            public_log=self._log_desk,
            clock=clock,
        )
        self._runs: dict[str, asyncio.Task[None]] = {}

    async def serve(self, ready: asyncio.Event | None = None) -> None:
        """Listen until cancelled.

        Raises:
            ConfigurationError: the port cannot be had.
        """
        server = grpc.aio.server(options=SERVER_OPTIONS)
        server.add_generic_rpc_handlers((ExchangeService(self._rooms).handler(),))
        try:
            server.add_secure_port(self._settings.listen, self._server_credentials())
        except RuntimeError as error:
            raise ConfigurationError(
                f"cannot listen on {self._settings.listen}: is another program using the port?"
            ) from error
        await server.start()
        log.info(
            "the coordinator of %s listens on %s", self._settings.consortium, self._settings.listen
        )
        if ready is not None:
            ready.set()
        try:
            await self._look_after_studies()
        finally:
            for task in self._runs.values():
                task.cancel()
            await server.stop(grace=0.5)
            self._store.close()
            os.close(self._lock)

    def _server_credentials(self) -> grpc.ServerCredentials:
        """TLS with a leaf of our own CA that is replaced while running, without a restart."""
        lifetime = timedelta(hours=self._settings.certificate_hours)
        leaf = self._authority.issue_coordinator(self._settings.addresses, self._clock(), lifetime)

        def configure(credentials: Credentials) -> grpc.ServerCertificateConfiguration:
            return grpc.ssl_server_certificate_configuration(
                [(credentials.key_pem, credentials.chain_pem)], self._authority.roots_pem
            )

        def when_due() -> grpc.ServerCertificateConfiguration | None:
            nonlocal leaf
            now = self._clock()
            if now < leaf.renew_at:
                return None
            leaf = self._authority.issue_coordinator(self._settings.addresses, now, lifetime)
            return configure(leaf)

        return grpc.dynamic_ssl_server_credentials(
            configure(leaf), when_due, require_client_authentication=True
        )

    async def _look_after_studies(self) -> None:
        """Start live studies, stop those that were stopped by a command, notice new ones."""
        seen, publish_at = -1, 0.0
        while True:
            now = self._clock()
            if now.timestamp() >= publish_at:
                self._publish_if_due(now)
                publish_at = now.timestamp() + PUBLISH_S
            version = self._store.version()
            if version != seen:
                seen = version
                self._hub.changed.set()
                self._start_and_stop()
                self._tell_changed_catalogues()
            await asyncio.sleep(LOOK_S)

    def _publish_if_due(self, now: datetime) -> None:
        """Renew both lists, of releases and of revoked; where that fails, say so and try again."""
        try:
            self._log_desk.refresh_if_due(now)
        except (ConfigurationError, OSError) as error:
            log.error(
                "the list of releases cannot be renewed: %s; when it is past its date nobody "
                "fetches a release until it succeeds",
                error,
            )
        try:
            self._issued.publish_if_due(self._authority, now)
        except (ConfigurationError, OSError, sqlite3.Error) as error:
            log.error(
                "the revocation list cannot be renewed: %s; it is tried again in %.0f s, and when "
                "the present list is past its date everybody is refused until it succeeds",
                error,
                PUBLISH_S,
            )

    def _tell_changed_catalogues(self) -> None:
        """Let sites know at once that asking for the catalogue is worth while."""
        for link in self._hub.links:
            digest = self._rooms.catalogue.digest(link.site)
            if digest != link.told:
                link.tell(digest, int(self._clock().timestamp() * 1000))

    def _start_and_stop(self) -> None:
        for record in self._store.studies():
            task = self._runs.get(record.plan_hash)
            if record.status in LIVE_STATUSES and task is None:
                run = asyncio.create_task(self._carry_out(record.study, record.plan_hash))
                self._runs[record.plan_hash] = run
            elif record.status == "stopped" and task is not None:
                task.cancel()

    async def _carry_out(self, study: str, plan_hash: str) -> None:
        """Carry a study out; after a fault of this program or machine, take it up again."""
        while True:
            record = self._store.study(study)
            if record.status not in LIVE_STATUSES or record.plan_hash != plan_hash:
                return
            try:
                run = self._make_run(record)
            except FedtwinError as error:
                text = f"the plan in the coordinator's database cannot be used: {error}"
                log.error("study %s: %s", study, text)
                self._store.set_status(study, "failed", text, self._clock())
                return
            try:
                await run.run()
                return
            except Exception:
                log.exception("study %s met a fault; it goes on in %.0f s", study, RETRY_S)
            await asyncio.sleep(RETRY_S)

    def _make_run(self, record: StudyRecord) -> StudyRun:
        plan = plan_of(record)
        if plan.hash != record.plan_hash:
            text = "the plan in the database is not the one that was opened: sites will refuse it"
            log.error("study %s: %s", record.study, text)
            self._store.note(record.study, "", text, self._clock())
        kind = SecureRun if plan.privacy.mode == "secure" else StudyRun
        return kind(
            record=record,
            plan=plan,
            rule=make_rule(plan, self._blobs),
            hub=self._hub,
            store=self._store,
            blobs=self._blobs,
            clock=self._clock,
        )


def _lock(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"there is no coordinator in {path.parent}: run 'fedtwin server init' first"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigurationError(
            f"another coordinator runs on {path.parent} already: two with one identity would "
            "answer for each other; stop the other one first"
        ) from error
    return descriptor
