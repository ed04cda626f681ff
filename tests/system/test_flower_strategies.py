"""Flower's strategies over four live sites: real processes, mutual TLS, a ClientApp at each."""

import asyncio
import os
import shutil
import textwrap
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from fedtwin.demo.consortium import LocalConsortium
from fedtwin.demo.simulation import flower_plan
from fedtwin.demo.synthetic import make_hospitals
from fedtwin_client.assemble import site_secret
from fedtwin_client.node.home import NodeHome
from fedtwin_client.store.imports import import_fhir
from fedtwin_client.training.built_in import load_rows
from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.content import make_content, read_content
from fedtwin_protocol.errors import ConfigurationError
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.coordinator import Home
from fedtwin_server.study_record import final_parameters

PATIENCE_S = 120.0
NOW = datetime(2026, 11, 20, tzinfo=UTC)
# A model family of the sites' own: each site knows one number, and the model learns their mean.
OWN_APP = """
    import os
    import numpy as np
    from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict, Message
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.query("cohort")
    def cohort(message, context):
        count = MetricRecord({"cohort-count": 100.0})
        return Message(RecordDict({"metrics": count}), reply_to=message)

    @app.train()
    def train(message, context):
        model = message.content["arrays"]
        own = float(len(os.environ.get("OWN_NUMBER", "")))
        moved = {k: Array(a.numpy() + 0.5 * (own - a.numpy())) for k, a in model.items()}
        metrics = {"num-examples": 100.0, "train_loss": 1.0}
        content = RecordDict({"arrays": ArrayRecord(moved), "metrics": MetricRecord(metrics)})
        return Message(content, reply_to=message)
"""


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalConsortium]:
    """A coordinator and four running sites whose policy lets unprotected studies pass."""
    folder = tmp_path_factory.mktemp("flower")
    made = make_hospitals(folder / "exports", seed=3, patients_per_hospital=150)["hospitals"]
    (folder / "apps").mkdir()
    (folder / "apps" / "own_app.py").write_text(textwrap.dedent(OWN_APP))
    policy = [
        ("when_allowed", "accept"),
        ("modes", "[local, none]"),
        ("model_families", "[logistic_regression, network, own_number]"),
    ]
    path = os.pathsep.join([str(folder / "apps"), os.environ.get("PYTHONPATH", "")])
    with pytest.MonkeyPatch.context() as patch, LocalConsortium(folder=folder / "all") as all_:
        patch.setenv("PYTHONPATH", path)
        all_.open()
        for place, name in enumerate(made):
            all_.enrol(name, policy)
            home = NodeHome(folder=all_.site(name))
            settings = yaml.safe_load(home.settings_file.read_text())
            settings["client_apps"] = {"own_number": "own_app:app"}
            home.settings_file.write_text(yaml.safe_dump(settings))
            import_fhir(
                [folder / "exports" / name], home.records, secret=site_secret(home), now=NOW
            )
            patch.setenv("OWN_NUMBER", "x" * (place + 1))
            all_.start_site(name)
        yield all_


def sites_of(consortium: LocalConsortium) -> list[str]:
    return sorted(path.parent.name for path in consortium.folder.glob("*/node.yaml"))


def plan_for(name: str, strategy: str, options: dict, **changes: object) -> StudyPlan:
    sites = {"quorum": 4, "smallest_cohort": 20, "gathering_s": 60}
    return flower_plan(strategy, options, study=name, sites=sites, **changes)


def add(consortium: LocalConsortium, plan: StudyPlan, *options: str) -> None:
    path = consortium.folder / f"{plan.study}.yaml"
    path.write_text(yaml.safe_dump(plan.model_dump(mode="json")))
    home = ("--home", str(consortium.server))
    consortium.run("server", "studies", "add", str(path), *home, *consortium.keys, *options)


def status(consortium: LocalConsortium, study: str) -> tuple[str, int]:
    store = Home(folder=consortium.server).store()
    try:
        return store.study(study).status, len(store.rounds(study))
    finally:
        store.close()


def model_of(consortium: LocalConsortium, plan: StudyPlan) -> dict[str, np.ndarray]:
    home = Home(folder=consortium.server)
    store = home.store()
    content = final_parameters(store, plan, home.blobs())
    arrays = read_content(content, home.blobs()).arrays["arrays"]
    store.close()
    return {name: np.array(array) for name, array in arrays.items()}


@pytest.fixture
def finished(hospitals: LocalConsortium, wait_until: Callable[..., None]) -> Callable[..., dict]:
    """Wait for a study's end, and give its model."""

    def wait(plan: StudyPlan) -> dict[str, np.ndarray]:
        ends = {"finished", "failed"}
        wait_until(lambda: status(hospitals, plan.study)[0] in ends, PATIENCE_S, plan.study)
        store = Home(folder=hospitals.server).store()
        record = store.study(plan.study)
        store.close()
        assert record.status == "finished", record.reason
        return model_of(hospitals, plan)

    return wait


@pytest.fixture
def expected(hospitals: LocalConsortium, flower_in_process: type, tmp_path: Path) -> Callable:
    """The model that the sites' patients give without any network."""

    def learn(plan: StudyPlan) -> dict[str, np.ndarray]:
        rows = {
            site: load_rows(plan, hospitals.site(site) / "records", NOW)
            for site in sites_of(hospitals)
        }
        return flower_in_process(plan, rows, tmp_path / "alone").learn(1, plan.training.rounds)

    return learn


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)
    assert np.linalg.norm(found["weights"]) > 0.1


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("FedAvg", {}),
        ("FedAdam", {"eta": 0.3, "tau": 0.01}),
        ("FedTrimmedAvg", {"beta": 0.25}),
        ("Krum", {"num_malicious_nodes": 1}),
    ],
)
def test_a_strategy_learns_over_live_sites(
    strategy: str,
    options: dict,
    hospitals: LocalConsortium,
    finished: Callable,
    expected: Callable,
) -> None:
    plan = plan_for(f"live-{strategy.lower()}", strategy, options)
    add(hospitals, plan)
    assert_same(finished(plan), expected(plan))


def test_two_studies_at_once_do_not_meet(
    hospitals: LocalConsortium, finished: Callable, expected: Callable
) -> None:
    """Flower keeps the identity of its run in a class of the whole process."""
    plans = [
        plan_for("twice-yogi", "FedYogi", {"eta": 0.2}, training={"rounds": 400}),
        plan_for("twice-median", "FedMedian", {}, training={"rounds": 400}),
    ]
    adding = [threading.Thread(target=add, args=(hospitals, plan)) for plan in plans]
    for thread in adding:
        thread.start()
    for thread in adding:
        thread.join()
    models = [finished(plan) for plan in plans]
    for plan, model in zip(plans, models, strict=True):
        assert_same(model, expected(plan))
    store = Home(folder=hospitals.server).store()
    closed = [[record.closed for record in store.rounds(plan.study)] for plan in plans]
    store.close()
    assert max(times[0] for times in closed) < min(times[-1] for times in closed), "not at once"


def test_the_moments_survive_a_killed_coordinator(
    hospitals: LocalConsortium,
    finished: Callable,
    expected: Callable,
    wait_until: Callable[..., None],
) -> None:
    """Killed twice between and within rounds, FedAdam ends where it would have ended."""
    plan = plan_for("killed-adam", "FedAdam", {"eta": 0.05}, training={"rounds": 100})
    add(hospitals, plan)
    for goal in (15, 60):
        wait_until(lambda goal=goal: status(hospitals, plan.study)[1] >= goal, PATIENCE_S)
        coordinator = next(process for process in hospitals.processes if "server" in process.args)
        coordinator.kill()
        coordinator.wait()
        hospitals.processes.remove(coordinator)
        state, rounds = status(hospitals, plan.study)
        assert (state, goal <= rounds < 100) == ("running", True)
        hospitals.start_server()
    assert_same(finished(plan), expected(plan))


def with_initial(folder: Path, family: str, **arrays: np.ndarray) -> tuple[dict, Path]:
    path = folder / f"{family}.safetensors"
    save_file(arrays, path)
    digest = sha256(path.read_bytes()).hexdigest()
    return {"family": family, "initial_sha256": digest}, path


@pytest.mark.parametrize(
    ("strategy", "options"),
    [("FedAvg", {}), ("QFedAvg", {"client_learning_rate": 0.5, "q": 0.0})],
)
def test_a_client_app_that_the_site_installed(
    strategy: str,
    options: dict,
    hospitals: LocalConsortium,
    finished: Callable,
    tmp_path: Path,
) -> None:
    """From initial parameters in a file to the mean of the sites' own numbers 1, 2, 3 and 4."""
    big = np.full(20_000, 10.0, np.float32)  # travels as a blob
    model, path = with_initial(tmp_path, "own_number", own=np.array([10.0]), big=big)
    plan = plan_for(f"own-{strategy.lower()}", strategy, options, model=model)
    add(hospitals, plan, "--initial", str(path))
    found = finished(plan)
    # Half of the way to 2.5 in each of 12 rounds; q = 0 makes QFedAvg a plain mean.
    wanted = 2.5 + 7.5 * 0.5**12
    assert found["own"] == pytest.approx([wanted], rel=1e-9)
    np.testing.assert_allclose(found["big"], wanted, rtol=1e-5)
    assert found["big"].dtype == np.float32


@pytest.mark.parametrize(
    ("model", "arrays", "sentence"),
    [
        ("own_number", {"own": np.array([1, 2])}, "float32 or float64"),
        ("own_number", {"own": np.array([np.nan])}, "finite"),
        ("logistic_regression", {"weights": np.zeros(3)}, "the family 'logistic_regression' has"),
    ],
)
def test_initial_parameters_that_cannot_be_learned_are_refused(
    model: str, arrays: dict, sentence: str, hospitals: LocalConsortium, tmp_path: Path
) -> None:
    chosen, path = with_initial(tmp_path, model, **arrays)
    plan = plan_for("wrong-initial", "FedAvg", {}, model=chosen)
    with pytest.raises(ConfigurationError, match=sentence):
        add(hospitals, plan, "--initial", str(path))


def test_a_file_that_would_be_ignored_or_is_another_is_refused(
    hospitals: LocalConsortium, tmp_path: Path
) -> None:
    chosen, path = with_initial(tmp_path, "own_number", own=np.zeros(1))
    with pytest.raises(ConfigurationError, match="would be ignored"):
        add(hospitals, plan_for("no-initial", "FedAvg", {}), "--initial", str(path))
    path.write_bytes(b"something else")
    with pytest.raises(ConfigurationError, match="another SHA-256"):
        add(hospitals, plan_for("other", "FedAvg", {}, model=chosen), "--initial", str(path))
    chosen["initial_sha256"] = sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ConfigurationError, match="no safetensors file"):
        add(hospitals, plan_for("other", "FedAvg", {}, model=chosen), "--initial", str(path))


def test_a_strategy_that_cannot_work_opens_no_study(hospitals: LocalConsortium) -> None:
    plan = plan_for("bagging", "FedXgbBagging", {})
    with pytest.raises(ConfigurationError, match="fedtwin: Flower's FedXgbBagging cannot be used"):
        add(hospitals, plan)
    store = Home(folder=hospitals.server).store()
    assert "bagging" not in {record.study for record in store.studies()}
    store.close()


def lies(honest: Payload, blobs: BlobStore) -> dict[int, pb.Content]:
    """What the liar answers, by round."""
    arrays = {name: np.array(array) for name, array in honest.arrays["arrays"].items()}
    weight = {"metrics": {"num-examples": 100.0}}

    def content(weights: np.ndarray, metrics: dict = weight) -> pb.Content:
        changed = {"arrays": {**arrays, "weights": weights}}
        return make_content(Payload(arrays=changed, metrics=metrics), blobs)

    own = arrays["weights"]
    moved = content(own)
    moved.records[0].kind = pb.Record.CONFIG  # arrays in a record that is none of arrays
    return {
        1: content(np.full_like(own, np.nan)),
        2: content(own[:-1]),
        3: content(own, {"metrics": {"num-examples": 1e12}}),
        4: content(own, {"metrics": {"num-examples": float("nan")}}),
        5: content(own + 1e9),
        6: moved,
        7: content(own, {}),
    }


def test_a_site_that_lies_fails_alone(
    hospitals: LocalConsortium, finished: Callable, expected: Callable, raw_site: type
) -> None:
    """Every bad reply is refused, and each round goes on with the four that are honest."""
    hospitals.enrol("liar")
    plan = plan_for("with-a-liar", "FedAdam", {"eta": 0.2}, training={"rounds": 7})
    refused: dict[int, str] = {}

    async def lie() -> None:
        async with raw_site(hospitals, "liar") as site:
            await site.greet()
            await site.join(plan.study)
            for _ in range(8):
                task = (await site.receive("task", 60)).task
                if task.kind == "query.cohort":
                    counted = Payload(metrics={"metrics": {"cohort-count": 100.0}})
                    await site.answer(task, make_content(counted, site.blobs))
                    continue
                # Raw frames: 16 weights and an intercept of 8 bytes each, and no more.
                assert len(task.content.inline) == 17 * 8
                told = lies(read_content(task.content, site.blobs), site.blobs)[task.round]
                received = await site.answer(task, told)
                assert not received.accepted, f"round {task.round}"
                refused[task.round] = received.reason

    add(hospitals, plan)
    asyncio.run(asyncio.wait_for(lie(), PATIENCE_S))
    found = finished(plan)
    reasons = ["not finite", "expected the arrays", "claims 1e+12 patients", "num-examples"]
    reasons += ["moves the model by", "expected the records", "expected the records"]
    for number, reason in enumerate(reasons, start=1):
        assert reason in refused[number], refused
    hospitals.run("server", "revoke", "liar", "--home", str(hospitals.server))
    shutil.rmtree(hospitals.site("liar"))
    assert_same(found, expected(plan))
