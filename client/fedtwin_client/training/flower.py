"""Flower at a site: the one place of the client that knows it.

A study whose rule is a Flower strategy, or whose model family the site's IT has installed as a
`ClientApp`, is answered by that app; `client_app` makes one of our own learner, which also runs on
Flower's simulation engine.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import uuid4

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"

import flwr.app as flower_app
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity

from fedtwin_client.training.apps import TaskInput, TrainingApp
from fedtwin_protocol.errors import ConfigurationError, FedtwinError
from fedtwin_protocol.flower_records import to_payload, to_records
from fedtwin_protocol.payload import Array, Fields, Payload
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.votes import VOTE_TASK

COHORT: Final = "query.cohort"


def client_app(app_of: Callable[[Context], TrainingApp]) -> ClientApp:
    """A Flower ClientApp that answers with our own training apps.

    Args:
        app_of: the app of a node, by Flower's context; a site has one, a simulation has many.
    """
    wrapped = ClientApp()

    def handle(kind: str, message: Message, context: Context) -> Message:
        payload = to_payload(message.content)
        settings = payload.config.get("config", {})
        number = settings.get("server-round", 0)
        task = TaskInput(
            kind=kind,
            round_number=number if isinstance(number, int) else 0,
            payload=payload,
            reported_count=_reported(settings, context),
        )
        answer = app_of(context).answer(task)
        if kind == COHORT:
            count: Any = answer.metrics["metrics"]["cohort-count"]
            context.state[COHORT] = MetricRecord({"cohort-count": count})
        return Message(to_records(answer, flower_app), reply_to=message)

    @wrapped.train()  # type: ignore[untyped-decorator, unused-ignore]
    def train(message: Message, context: Context) -> Message:
        return handle("train", message, context)

    @wrapped.evaluate()  # type: ignore[untyped-decorator, unused-ignore]
    def evaluate(message: Message, context: Context) -> Message:
        return handle("evaluate", message, context)

    @wrapped.query("cohort")  # type: ignore[untyped-decorator, unused-ignore]
    def cohort(message: Message, context: Context) -> Message:
        return handle(COHORT, message, context)

    @wrapped.query("vote")  # type: ignore[untyped-decorator, unused-ignore]
    def vote(message: Message, context: Context) -> Message:
        return handle(VOTE_TASK, message, context)

    return wrapped


def _reported(settings: Fields, context: Context) -> float | None:
    """The cohort count that this node reported: told with the task, or kept by Flower."""
    count: Any = settings.get("reported-count")
    if count is None and COHORT in context.state:
        count = context.state[COHORT].get("cohort-count")
    return float(count) if isinstance(count, float | int) else None


class ClientAppRunner:
    """Runs a ClientApp as a training app.

    Args:
        app: the ClientApp.
        plan: the study's plan; the ClientApp finds its canonical JSON as `plan` in the run's
            configuration.
        own: the app of ours that the ClientApp stands for; none for one that the site installed.
    """

    def __init__(self, app: ClientApp, plan: StudyPlan, own: TrainingApp | None = None) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self._app = app
        self._own = own
        self._context = Context(
            run_id=1,
            node_id=1,
            node_config={},
            state=RecordDict(),
            run_config={"study": plan.study, "plan": plan.to_bytes().decode()},
        )

    def answer(self, task: TaskInput) -> Payload:
        """Hand the task to the ClientApp; its reply's records are the answer.

        Raises:
            FedtwinError: the ClientApp replied with an error.
        """
        settings = dict(task.payload.config.get("config", {}))
        settings.setdefault("server-round", task.round_number)
        if task.reported_count is not None:
            settings["reported-count"] = task.reported_count
        payload = Payload(
            arrays=task.payload.arrays,
            metrics=task.payload.metrics,
            config={**task.payload.config, "config": settings},
        )
        message = Message(to_records(payload, flower_app), 1, task.kind)
        message.metadata.__dict__["_message_id"] = uuid4().hex
        reply = self._app(message, self._context)
        if reply.has_error():
            raise FedtwinError(f"the ClientApp answered with error {reply.error.code}")
        return to_payload(reply.content)

    def cohort_sizes(self) -> tuple[int, int]:
        """True numbers of patients; an installed ClientApp says how many by its query.

        Raises:
            ConfigurationError: it does not.
        """
        if self._own is not None:
            return self._own.cohort_sizes()
        empty = TaskInput(kind=COHORT, round_number=0, payload=Payload(), reported_count=None)
        count = self.answer(empty).metrics.get("metrics", {}).get("cohort-count")
        if not isinstance(count, float | int):
            raise ConfigurationError(
                "the installed ClientApp must answer 'query.cohort' with the metric 'cohort-count'"
            )
        return int(count), 0

    def local_report(self, parameters: Mapping[str, Array]) -> dict[str, Any]:
        """How a model does here; there is no such report for a ClientApp that the site installed.

        Raises:
            ConfigurationError: the site installed it.
        """
        if self._own is None:
            raise ConfigurationError("an installed ClientApp has no local report")
        return self._own.local_report(parameters)
