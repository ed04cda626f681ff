"""The training workers of a node, one a study; started when first asked, stopped when idle."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from fedtwin_client.at_rest.keyring import keyring_of
from fedtwin_client.node.home import NodeHome, NodeSettings
from fedtwin_client.node.policy import load_policy
from fedtwin_client.node.worker_process import Told, WorkerProcess
from fedtwin_client.readiness.standing import blocks, mark
from fedtwin_client.training.pseudonym_list import Members
from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.parameters import BUILT_IN_FAMILIES
from fedtwin_protocol.study import StudyPlan

Clock = Callable[[], datetime]


class Workers:
    """All workers of a node.

    Args:
        home: the node's folder.
        settings: names the ClientApps that are installed here.
        clock: the time.
        members: the patients that the ledger has for a plan, by its hash; none: not yet, or all.
    """

    def __init__(
        self,
        home: NodeHome,
        settings: NodeSettings,
        clock: Clock,
        members: Callable[[str], Members | None] = lambda _: None,
    ) -> None:
        self._members = members
        self._home = home
        self._settings = settings
        self._clock = clock
        self._workers: dict[str, WorkerProcess] = {}
        self._policy_mark: tuple[int, int, int] | None = None
        self._consent = "opt_in"
        self._blocked: dict[str, tuple[object, list[str]]] = {}
        home.plans.mkdir(mode=0o700, exist_ok=True)

    def installed(self, family: str) -> bool:
        """Whether this node can train that family."""
        return family in BUILT_IN_FAMILIES or family in self._settings.client_apps

    def worker(self, plan: StudyPlan) -> WorkerProcess:
        """The worker of a study."""
        if plan.hash not in self._workers:
            plan_file = self._home.plans / f"{plan.hash}.json"
            plan_file.write_bytes(plan.to_bytes())
            self._workers[plan.hash] = WorkerProcess(
                plan_file,
                self._home.records,
                self._home.contents,
                self._settings.client_apps.get(plan.model.family, ""),
                self._clock(),
                told=Told(
                    keys=self._keys,
                    members=partial(self._members, plan.hash),
                    standing=partial(self._standing, plan.hash),
                ),
            )
        return self._workers[plan.hash]

    def _keys(self) -> bytes:
        keyring = keyring_of(self._home.folder)
        return b"" if keyring is None else keyring.to_bytes()

    def _standing(self, plan_hash: str) -> dict[str, Any]:
        """The policy's rule of consent, the blocked features and the time, for every order."""
        found = self._home.policy_file.stat() if self._home.policy_file.exists() else None
        mark = None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)
        if mark is None or mark != self._policy_mark:
            self._consent = load_policy(self._home.policy_file).consent
            self._policy_mark = mark
        return {
            "consent": self._consent,
            "time": self._clock().isoformat(),
            "without": self._without(plan_hash),
        }

    def _without(self, plan_hash: str) -> list[str]:
        """Features that count as missing; read again when a report or a word was written."""
        found = mark(self._home.folder)
        known = self._blocked.get(plan_hash)
        if known is None or known[0] != found:
            names = sorted(block.feature for block in blocks(self._home.folder, plan_hash))
            known = (found, names)
            self._blocked[plan_hash] = known
        return known[1]

    async def stop(self, plan_hash: str) -> None:
        """End the worker of a study that is over."""
        worker = self._workers.pop(plan_hash, None)
        if worker is not None:
            await worker.stop()
            BlobStore(self._home.contents).drop_spares()

    async def stop_all(self) -> None:
        """End every worker."""
        for plan_hash in list(self._workers):
            await self.stop(plan_hash)
