"""What a node does with a task: check, charge, compute, keep, answer.

In this order. A task that was answered before is answered with the same bytes. The ledger's charge
is on disk before the worker may draw noise, and the answer is on disk before a byte of it leaves;
so a crash between any two steps neither spends budget twice for one answer nor sends two answers
for one charge.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fedtwin_client.node.ledger import Ledger
from fedtwin_client.node.outbox import Outbox, Outgoing
from fedtwin_client.node.studies import KnownStudies, KnownStudy
from fedtwin_client.node.sum_desk import SumDesk
from fedtwin_client.node.workers import Clock, Workers
from fedtwin_protocol.blobs import BlobRef, BlobStore
from fedtwin_protocol.charge_kinds import ChargeKind
from fedtwin_protocol.content import ref_of
from fedtwin_protocol.errors import FedtwinError, PlanError, PolicyError, WireError
from fedtwin_protocol.parameters import BUILT_IN_FAMILIES
from fedtwin_protocol.payload import unpack
from fedtwin_protocol.secure_messages import RECORD
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.sum_steps import MASKED, step_of
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_protocol.votes import VOTE_TASK

log = logging.getLogger("fedtwin.tasks")
KINDS: dict[str, ChargeKind] = {
    "query.cohort": "count",
    "train": "train",
    VOTE_TASK: "vote",
    "evaluate": "evaluate",
}
# What leaves when a site cannot: fixed sentences, because the reason may speak of patients.
FAULTS = {
    "BudgetError": "the site's privacy ledger does not allow it",
    "LedgerError": "the site's privacy ledger cannot be written",
    "PolicyError": "the site has not accepted this study",
}
OTHER_FAULT = "the site could not carry the task out"
OTHER_CODE = "task"


class TaskDesk:
    """Answers tasks.

    Args:
        studies: what the hospital accepted.
        ledger: charged first.
        outbox: where answers are kept.
        workers: where they are computed.
        blobs: contents.
        sums: this site's part in secure sums.
        clock: the time.
    """

    def __init__(
        self,
        studies: KnownStudies,
        ledger: Ledger,
        outbox: Outbox,
        workers: Workers,
        blobs: BlobStore,
        sums: SumDesk,
        clock: Clock,
    ) -> None:
        self._studies = studies
        self._ledger = ledger
        self._outbox = outbox
        self._workers = workers
        self._blobs = blobs
        self._sums = sums
        self._clock = clock
        self._needed: Counter[bytes] = Counter()

    def kept(self, task: pb.Task) -> Outgoing | None:
        """The answer that was given to this task before, if any."""
        return self._outbox.get(task.task_id)

    def check(self, task: pb.Task) -> KnownStudy:
        """Hold a task against what the hospital accepted.

        Raises:
            WireError: another round or kind than the accepted study has.
            PolicyError: the hospital has not accepted this plan, or has left the study.
        """
        study = self._studies.by_hash(task.plan_hash.hex())
        if study is None or study.study != task.study or study.decision != "accepted":
            raise PolicyError("a task came for a study that this hospital has not accepted")
        plan = study.plan
        purpose, step = step_of(task.kind)
        summed = plan.privacy.mode == "secure" and task.kind != VOTE_TASK
        if summed != bool(step) or (step and purpose == VOTE_TASK):
            raise WireError(f"a task '{task.kind[:30]}' does not fit mode '{plan.privacy.mode}'")
        first, last = {
            "query.cohort": (0, 0),
            "train": (1, plan.training.rounds),
            VOTE_TASK: (1, 0 if plan.privacy.vote_noise is None else plan.training.rounds),
            "evaluate": (plan.training.rounds, plan.training.rounds),
        }.get(purpose, (1, 0))
        if not first <= task.round <= last:
            raise WireError(
                f"a task '{task.kind[:30]}' came for round {task.round}, not in the plan"
            )
        return study

    @contextmanager
    def needing(self, ref: BlobRef) -> Iterator[None]:
        """Remove a task's large content when the last task that needs it is answered or failed.

        It stays when the work is cut off, as by a lost link: the task will come again.
        """
        self._needed[ref.sha256] += 1
        try:
            yield
        except asyncio.CancelledError:
            self._needed[ref.sha256] -= 1
            raise
        except BaseException:
            self._no_longer(ref)
            raise
        self._no_longer(ref)

    def _no_longer(self, ref: BlobRef) -> None:
        self._needed[ref.sha256] -= 1
        if self._needed[ref.sha256] <= 0:
            del self._needed[ref.sha256]
            self._blobs.remove([ref.sha256])

    async def answer(self, task: pb.Task) -> Outgoing:
        """Carry a task out; its contents are here already.

        Raises:
            FedtwinError: it cannot be done; nothing was sent.
        """
        study = self.check(task)
        purpose, step = step_of(task.kind)
        if step and step != MASKED:
            content = self._sums.step(task, study.plan, self._clock())
            return self._keep(task, content, noised=False)
        kind = KINDS[purpose]
        order: dict[str, Any] = {"op": "task", "kind": purpose, "round": task.round}
        if step:
            order["mask"] = self._sums.mask_order(task, study.plan, self._clock())
        elif kind == "train" and study.reported_count is None:
            raise PlanError("a training task came before the cohort count was asked for")
        self._ledger.charge(study.study, task.task_id, kind, self._clock())
        order["reported_count"] = study.reported_count
        reply = await self._workers.worker(study.plan).ask(order, task.content.SerializeToString())
        self.check(task)  # the hospital may have left the study meanwhile
        content = pb.Content.FromString(reply.body)
        if kind == "count" and not step:
            self._keep_count(study, content)
        return self._keep(task, content, noised=study.plan.privacy.mode != "none")

    def fault(self, task: pb.Task, error: FedtwinError) -> pb.Answer:
        """What leaves when a task cannot be carried out: a fixed sentence."""
        log.error("task %s of study %s round %d: %s", task.kind, task.study, task.round, error)
        kind = type(error).__name__
        text = FAULTS.get(kind, OTHER_FAULT)
        # Of other faults not even the kind leaves: "cohort" would say that patients have left it.
        code = kind.removesuffix("Error").lower() if kind in FAULTS else OTHER_CODE
        return pb.Answer(
            task_id=task.task_id,
            study=task.study,
            plan_hash=task.plan_hash,
            round=task.round,
            fault=pb.Fault(code=code, text=text),
        )

    def receipt(self, received: pb.Received) -> None:
        """The coordinator has, or refuses, an answer."""
        if received.accepted:
            self._outbox.acknowledge(received.task_id, self._clock())
            self._outbox.prune(self._blobs)
        else:
            log.warning("the coordinator did not take an answer: %s", received.reason)

    def _keep_count(self, study: KnownStudy, content: pb.Content) -> None:
        metrics = unpack(content.records, content.inline).metrics.get("metrics", {})
        count = metrics.get("cohort-count")
        if not isinstance(count, float | int):
            raise PlanError("the model family's app gave no cohort count")
        self._studies.set_count(study.plan_hash, float(count))

    def _keep(self, task: pb.Task, content: pb.Content, *, noised: bool) -> Outgoing:
        message = pb.Answer(
            task_id=task.task_id,
            study=task.study,
            plan_hash=task.plan_hash,
            round=task.round,
            content=content,
        )
        ref = ref_of(content)
        outgoing = Outgoing(
            task=task.task_id,
            study=task.study,
            round=task.round,
            kind=task.kind,
            head=message.SerializeToString(),
            blob=None if ref is None else self._blobs.path(ref.sha256),
            blob_sha256="" if ref is None else ref.sha256.hex(),
            blob_size=0 if ref is None else ref.size,
        )
        return self._outbox.store(outgoing, self._clock(), flushed=noised)


def in_words(answer: pb.Answer, plan: StudyPlan) -> str:
    """What an answer holds, for the list of what left."""
    if answer.WhichOneof("outcome") == "fault":
        return f"a refusal: {answer.fault.text}"
    if any(record.name in {RECORD, "arrays"} for record in answer.content.records) and (
        plan.privacy.mode == "secure"
    ):
        return _step_in_words(answer)
    noised = "not noised (mode none)" if plan.privacy.mode == "none" else "noised"
    if plan.model.family not in BUILT_IN_FAMILIES:
        noised = "as the installed app made it (its noise is not checked here)"
    parts = [
        f"{head.name}, {_size(head)} numbers, {noised}"
        for record in answer.content.records
        for head in record.arrays
    ]
    for record in answer.content.records:
        parts += [f"{item.name}, {noised}" for item in record.fields]
    return "; ".join(parts)


def _step_in_words(answer: pb.Answer) -> str:
    for record in answer.content.records:
        for head in record.arrays:
            return f"part of a secure sum, {_size(head)} numbers, noised and masked"
    names = [item.name for record in answer.content.records for item in record.fields]
    return f"step of a secure sum: {', '.join(names)}; nothing of any patient"


def _size(head: pb.ArrayHead) -> int:
    size = 1
    for length in head.shape:
        size *= length
    return size
