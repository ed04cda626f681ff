"""The training worker: one process a study, started by the agent, where the patients' rows are.

It prices plans, builds the cohort, and turns a task's content into an answer's content. The agent
has charged the ledger before the worker is asked for anything noised. Torch, DuckDB and the
accountant are loaded here, when first needed, and never in the agent.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_client.training.absence import Absent, any_of
from fedtwin_client.training.apps import TaskInput, TrainingApp
from fedtwin_client.training.masked_part import masked_part
from fedtwin_client.training.pseudonym_list import pack
from fedtwin_client.training.roster import Roster
from fedtwin_client.training.worker_wire import Frame, read_frame
from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.content import make_content, read_content
from fedtwin_protocol.errors import ConfigurationError, FedtwinError, PlanError
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.secure_messages import PART
from fedtwin_protocol.secure_terms import secure_terms
from fedtwin_protocol.study import StudyPlan, plan_from_bytes
from fedtwin_protocol.v1 import exchange_pb2 as pb

if TYPE_CHECKING:
    from fedtwin_client.cohort.rows import CohortRows
    from fedtwin_client.store.consents import Rule


class Worker:
    """Answers orders about one study.

    Args:
        plan: the study's plan.
        store: folder of the timelines.
        blobs: contents too large for a pipe.
        app_path: `module:name` of an installed Flower ClientApp for the plan's model family, or
            empty for the families built in.
        now: the time, for cohorts.
        keyring: the node's; none where its files are not encrypted.
    """

    def __init__(
        self,
        plan: StudyPlan,
        store: Path,
        blobs: BlobStore,
        app_path: str,
        now: datetime,
        keyring: Keyring | None = None,
    ) -> None:
        self._keyring = keyring
        self._consent: Rule = "opt_in"
        self._time = now
        self._plan = plan
        self._store = store
        self._blobs = blobs
        self._app_path = app_path
        self._now = now
        self._without: frozenset[str] = frozenset()
        self._app: TrainingApp | None = None
        self._roster = Roster()

    def answer(self, order: Frame) -> Frame:
        """Carry out one order.

        It says which rule of consent holds, the time, and which features count as missing here; if
        these have changed, the cohort is built anew.
        """
        self._consent = order.head.get("consent", "opt_in")
        self._time = datetime.fromisoformat(order.head.get("time", self._now.isoformat()))
        without = frozenset(order.head.get("without", ()))
        if without != self._without:
            self._without, self._app = without, None
        operations: dict[str, Callable[[Frame], Frame]] = {
            "price": self._price,
            "members": self._confine,
            "cohort": self._cohort,
            "task": self._task,
            "report": self._report,
        }
        return operations[order.head["op"]](order)

    def _price(self, order: Frame) -> Frame:
        from fedtwin_client.training.accounting import price  # noqa: PLC0415 - a second to import

        found = price(self._plan, order.head["orders"])
        return Frame(head={"ok": True, "price": asdict(found)})

    def _confine(self, order: Frame) -> Frame:
        """Use nobody's row but those of the members that the ledger has."""
        self._roster.confine(None if order.head.get("everybody") else order.body)
        return Frame(head={"ok": True})

    def _cohort(self, order: Frame) -> Frame:
        """Sizes of the cohort, and who is in it, where the app says so; it stays at the site."""
        del order
        app = self._training_app()
        training, held_out = app.cohort_sizes()
        patients = app.patients()
        head = {"ok": True, "training": training, "held_out": held_out}
        head["named"] = patients is not None
        return Frame(head=head, body=pack(patients or ()))

    def _task(self, order: Frame) -> Frame:
        content = pb.Content.FromString(order.body)
        task = TaskInput(
            kind=order.head["kind"],
            round_number=order.head["round"],
            payload=read_content(content, self._blobs),
            reported_count=order.head.get("reported_count"),
        )
        if "mask" in order.head:
            answer = self._masked(task, order.head["mask"])
        else:
            answer = self._training_app().answer(task)
        return Frame(head={"ok": True}, body=make_content(answer, self._blobs).SerializeToString())

    def _masked(self, task: TaskInput, mask: Mapping[str, list[str]]) -> Payload:
        """This site's part of a secure sum, under its masks."""
        from fedtwin_client.training.built_in import BuiltIn  # noqa: PLC0415 - DuckDB

        app = self._training_app()
        if not isinstance(app, BuiltIn):
            raise PlanError("only the built-in model families take part in secure sums")
        part = app.part(task)
        added, subtracted = (
            [bytes.fromhex(key) for key in mask[name]] for name in ("added", "subtracted")
        )
        numbers = masked_part(
            part.exact,
            part.largest,
            part.noise_multiplier,
            secure_terms(self._plan, mask["sites"]),
            app.noise,
            (added, subtracted),
        )
        return Payload(arrays={"arrays": {PART: numbers}})

    def _report(self, order: Frame) -> Frame:
        """The local report of a model, before and after recalibration; it stays at the site."""
        payload = read_content(pb.Content.FromString(order.body), self._blobs)
        report = self._training_app().local_report(payload.arrays["arrays"])
        return Frame(head={"ok": True, "report": report})

    def _training_app(self) -> TrainingApp:
        if self._app is None:
            self._app = self._make_app()
        return self._app

    def _make_app(self) -> TrainingApp:
        if self._app_path:
            from fedtwin_client.training.flower import ClientAppRunner  # noqa: PLC0415 - Flower

            return ClientAppRunner(load_client_app(self._app_path), self._plan)
        from fedtwin_client.training.built_in import BuiltIn, load_rows  # noqa: PLC0415 - DuckDB

        rows = load_rows(self._plan, self._store, self._now, self._keyring, self._without)
        outside = self._roster.outside(rows.subject_ids.tolist())
        app = BuiltIn(self._plan, rows, os.urandom(32), any_of(outside, self._absent(rows)))
        if self._plan.aggregation.rule != "flower":
            return app
        from fedtwin_client.training.flower import ClientAppRunner, client_app  # noqa: PLC0415

        return ClientAppRunner(client_app(lambda _: app), self._plan, own=app)

    def _absent(self, rows: "CohortRows") -> Absent:
        """Who of a cohort has objected, or did not consent; asked before each task."""
        from fedtwin_client.store.consents import Consents  # noqa: PLC0415 - DuckDB, with its folder

        consents = Consents(self._store, self._keyring)
        patients = frozenset(rows.subject_ids.tolist())
        return lambda: consents.absent(self._consent, patients, self._time)


def load_client_app(path: str) -> Any:
    """Import the Flower ClientApp at `module:name`.

    Raises:
        ConfigurationError: there is no such module or name on this node, its import fails, or it
            is no ClientApp.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise ConfigurationError(
            f"node.yaml names the app '{path}', which cannot be imported here: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not callable(found) or type(found).__name__ != "ClientApp":
        raise ConfigurationError(
            f"node.yaml names '{path}', which is a {type(found).__name__} and no Flower ClientApp"
        )
    return found


def without_words(error: BaseException) -> str:
    """Where a fault happened: kinds of errors and lines of code, for the node's log.

    What the errors say is left out: an error over a patient's row often quotes the row.
    """
    lines: list[str] = []
    chain: BaseException | None = error
    while chain is not None:
        title = "a fault of this program, or of an installed app" if not lines else "it came of"
        kind = f"{type(chain).__module__}.{type(chain).__qualname__}"
        lines += [f"{title}: {kind}\n", *traceback.format_tb(chain.__traceback__)]
        chain = chain.__cause__ or chain.__context__
    return "".join(lines)


def serve(worker: Worker, orders: BinaryIO, replies: BinaryIO) -> None:
    """Answer orders until the agent closes the pipe; an error is an answer, not an end."""
    while (order := read_frame(orders)) is not None:
        try:
            reply = worker.answer(order)
        except FedtwinError as error:
            reply = Frame(head={"ok": False, "error": type(error).__name__, "text": str(error)})
        except Exception as error:
            sys.stderr.write(without_words(error))
            text = f"the training worker failed: {type(error).__name__} (see the node's log)"
            reply = Frame(head={"ok": False, "error": "FedtwinError", "text": text})
        replies.write(reply.to_bytes())
        replies.flush()


def main() -> None:
    """Entry point: `python -m fedtwin_client.training.worker PLAN STORE BLOBS APP NOW`.

    The first frame on its standard input holds the node's keys.
    """
    plan_file, store, blobs, app_path, now = sys.argv[1:6]
    keys = read_frame(sys.stdin.buffer)
    if keys is None:
        return
    replies = os.fdopen(os.dup(1), "wb")
    # Whatever a library or an installed app prints must not reach the agent's pipe, and may speak
    # of patients, so that it must not reach the node's log either.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    np.seterr(all="ignore")
    worker = Worker(
        plan_from_bytes(Path(plan_file).read_bytes()),
        Path(store),
        BlobStore(Path(blobs)),
        app_path,
        datetime.fromisoformat(now),
        Keyring.from_bytes(keys.body),
    )
    serve(worker, sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
