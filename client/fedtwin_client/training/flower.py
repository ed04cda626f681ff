"""Flower at a site: the one place of the client that knows it.

A study whose rule is a Flower strategy, or whose model family the site's IT has installed as a
`ClientApp`, is answered by that app; `client_app` makes one of our own learner, which also runs on
Flower's simulation engine.
"""

import os
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"

import flwr.app as flower_app
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity

from fedtwin_client.training.apps import TaskInput, TrainingApp
from fedtwin_protocol.errors import ConfigurationError, FedtwinError
from fedtwin_protocol.flower_records import to_payload, to_records
from fedtwin_protocol.payload import Array, Payload
from fedtwin_protocol.study import StudyPlan


def client_app(app: TrainingApp) -> ClientApp:
    """A Flower ClientApp that answers with one of our training apps."""
    wrapped = ClientApp()

    def handle(kind: str, message: Message) -> Message:
        payload = to_payload(message.content)
        settings = payload.config.get("config", {})
        number = settings.get("server-round", 0)
        count = settings.get("reported-count")
        task = TaskInput(
            kind=kind,
            round_number=number if isinstance(number, int) else 0,
            payload=payload,
            reported_count=float(count) if isinstance(count, float | int) else None,
        )
        return Message(to_records(app.answer(task), flower_app), reply_to=message)

    @wrapped.train()  # type: ignore[untyped-decorator, unused-ignore]
    def train(message: Message, context: Context) -> Message:
        del context
        return handle("train", message)

    @wrapped.evaluate()  # type: ignore[untyped-decorator, unused-ignore]
    def evaluate(message: Message, context: Context) -> Message:
        del context
        return handle("evaluate", message)

    @wrapped.query("cohort")  # type: ignore[untyped-decorator, unused-ignore]
    def cohort(message: Message, context: Context) -> Message:
        del context
        return handle("query.cohort", message)

    return wrapped


class ClientAppRunner:
    """Runs a ClientApp as a training app.

    Args:
        app: the ClientApp.
        plan: the study's plan.
    """

    def __init__(self, app: ClientApp, plan: StudyPlan) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self._app = app
        self._plan = plan
        self._context = Context(
            run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={}
        )

    def answer(self, task: TaskInput) -> Payload:
        """Hand the task to the ClientApp; its reply's records are the answer."""
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
        """An installed ClientApp keeps its own patients; it says how many by its query."""
        empty = TaskInput(
            kind="query.cohort", round_number=0, payload=Payload(), reported_count=None
        )
        count = self.answer(empty).metrics.get("metrics", {}).get("cohort-count")
        if not isinstance(count, float | int):
            raise ConfigurationError(
                "the installed ClientApp must answer 'query.cohort' with the metric 'cohort-count'"
            )
        return int(count), 0

    def local_report(self, parameters: Mapping[str, Array]) -> dict[str, Any]:
        """There is no report of ours for a ClientApp that the site installed itself."""
        del parameters
        raise ConfigurationError("this study's model family has no local report")
