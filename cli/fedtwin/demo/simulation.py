"""A study on Flower's own simulation engine: many hospitals in one machine's memory, no network.

The two apps are the real ones: the coordinator's round (`run_round`) is the ServerApp's loop, and
the sites' learner stands behind the ClientApp. Only what carries the messages is Flower's.
"""

import importlib.util
import os
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedtwin.demo.synthetic import PLAN, make_hospitals
from fedtwin_client.store.imports import import_fhir
from fedtwin_client.training.built_in import BuiltIn, load_rows
from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.errors import CohortError, ConfigurationError, PlanError
from fedtwin_protocol.parameters import initial_parameters
from fedtwin_protocol.payload import Array
from fedtwin_protocol.study import StudyPlan, plan_from_bytes, plan_from_value, plan_from_yaml

CPUS_A_SITE: Final = 1
START_PATIENCE_S: Final = 60.0


def flower_plan(strategy: str, options: dict[str, Any], **changes: Any) -> StudyPlan:
    """The synthetic study, learned by a Flower strategy instead of sums.

    Args:
        strategy: class name in `flwr.serverapp.strategy`.
        options: its keyword arguments.
        **changes: whole parts of the plan to replace fields of, such as `training={"rounds": 3}`.

    Raises:
        PlanError: the plan does not add up.
    """
    value = plan_from_yaml(PLAN).model_dump(mode="json")
    value["training"] = {
        "mechanism": "local_steps",
        "rounds": 12,
        "learning_rate": 1.0,
        "local_steps": 4,
    }
    value["aggregation"] = {"rule": "flower", "strategy": strategy, "options": options}
    value["privacy"] |= {"mode": "none", "evaluation_noise": None, "vote_noise": None}
    for part, fields in changes.items():
        value[part] = {**value[part], **fields} if isinstance(fields, dict) else fields
    return plan_from_value(value, f"the synthetic study with {strategy}")


def simulate_synthetic(
    plan: StudyPlan, sites: int, patients: int, seed: int, now: datetime
) -> list[dict[str, Any]]:
    """Make synthetic hospitals, learn from them, and try the model on each; a report a hospital.

    Raises:
        ConfigurationError: the simulation engine is not installed, or a number is out of range.
        PlanError: the plan cannot be simulated.
    """
    _check(plan, sites)
    with tempfile.TemporaryDirectory(prefix="fedtwin-simulation-") as folder:
        exports, stores = Path(folder) / "exports", Path(folder) / "stores"
        made = make_hospitals(exports, seed, patients, sites)["hospitals"]
        for name in made:
            import_fhir(
                [exports / name], stores / name, secret=os.urandom(32), now=now, server=name
            )
        places = [stores / name for name in made]
        model = simulate(plan, places, now)
        return [
            {"hospital": place.name, **_app(plan.to_bytes(), str(place), now).local_report(model)}
            for place in places
        ]


def simulate(plan: StudyPlan, stores: Sequence[Path], now: datetime) -> dict[str, Array]:
    """Learn a study's model from timeline stores, a simulated site each.

    Args:
        plan: of rule `flower` and a built-in model family.
        stores: folders of timelines.
        now: the time at every site.

    Returns:
        The final parameters by name.

    Raises:
        ConfigurationError: the simulation engine is not installed.
        PlanError: the plan cannot be simulated, or its strategy failed.
        CohortError: a site cannot take part.
    """
    _check(plan, len(stores))
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    from flwr.app import Context
    from flwr.serverapp import Grid, ServerApp
    from flwr.simulation import run_simulation

    from fedtwin_client.training.flower import client_app
    from fedtwin_server.flower import make_strategy

    with tempfile.TemporaryDirectory() as folder:  # before the engine gives its run an identity
        strategy = make_strategy(plan, BlobStore(Path(folder)))
    plan_bytes, places = plan.to_bytes(), [str(store) for store in stores]
    for place in places:  # a cohort that cannot be built ends in its own sentence, here
        _app(plan_bytes, place, now)
    found: dict[str, Array] = {}
    server = ServerApp()

    @server.main()  # type: ignore[untyped-decorator, unused-ignore]
    def lead(grid: Grid, context: Context) -> None:
        del context
        found.update(_lead(plan, strategy, grid, len(places)))

    def app_of(context: Context) -> BuiltIn:
        return _app(plan_bytes, places[int(context.node_config["partition-id"])], now)

    run_simulation(
        server_app=server,
        client_app=client_app(app_of),
        num_supernodes=len(places),
        backend_config={
            "init_args": {"include_dashboard": False, "log_to_driver": False},
            "client_resources": {"num_cpus": CPUS_A_SITE, "num_gpus": 0.0},
        },
    )
    return found


def _check(plan: StudyPlan, sites: int) -> None:
    if plan.aggregation.rule != "flower":
        raise PlanError(
            f"the simulation runs Flower's strategies, the plan's aggregation rule is "
            f"'{plan.aggregation.rule}': set rule 'flower' and name a strategy"
        )
    if sites < plan.sites.quorum:
        raise PlanError(f"the plan's quorum is {plan.sites.quorum}, only {sites} are simulated")
    if importlib.util.find_spec("ray") is None:
        raise ConfigurationError(
            "Flower's simulation engine is not installed here: "
            "pip install --constraint constraints.txt 'fedtwin[simulation]'"
        )


def _lead(plan: StudyPlan, strategy: Any, grid: Any, sites: int) -> dict[str, Array]:
    """The coordinator's part: counts first, then the rounds."""
    from flwr.app import Message, RecordDict

    from fedtwin_server.flower import run_round

    deadline = time.monotonic() + START_PATIENCE_S
    while len(nodes := list(grid.get_node_ids())) < sites and time.monotonic() < deadline:
        time.sleep(0.05)
    asked = [Message(RecordDict(), node, "query.cohort") for node in nodes]
    replies = list(grid.send_and_receive(asked))
    failed = [reply for reply in replies if reply.has_error()]
    if failed or len(replies) != sites:
        reasons = "; ".join(sorted({str(reply.error.reason)[-300:] for reply in failed}))
        came = len(replies) - len(failed)
        raise CohortError(f"{came} of {sites} simulated sites can take part. {reasons}")
    model: dict[str, Array] = dict(initial_parameters(plan))
    last: list[dict[str, Array]] = []
    for number in range(1, plan.training.rounds + 1):
        model = run_round(strategy, number, model, grid, plan.hash)
        last = [*last, model][-plan.training.average_last :]
    return {name: np.mean([each[name] for each in last], axis=0) for name in model}


@cache
def _app(plan_bytes: bytes, store: str, now: datetime) -> BuiltIn:
    """A site's app; a process of the simulation builds each cohort once."""
    plan = plan_from_bytes(plan_bytes)
    return BuiltIn(plan, load_rows(plan, Path(store), now), os.urandom(32))
