"""A node makes one connection, to its coordinator; and each process loads only what it needs.

Two watches see it: an audit hook in every Python process records each connection, name look-up and
import; a poll of the process tree's sockets sees what C libraries open too.
"""

import json
import os
import re
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from safetensors.numpy import save_file

from fedtwin.demo.consortium import LocalConsortium
from fedtwin.demo.simulation import flower_plan
from fedtwin.demo.synthetic import PLAN, make_hospitals
from fedtwin_client.assemble import site_secret
from fedtwin_client.node.home import NodeHome
from fedtwin_client.store.imports import import_fhir
from fedtwin_protocol.study import StudyPlan, plan_from_value, plan_from_yaml
from fedtwin_server.coordinator import Home

HOOK = """
    import json, os, sys

    LOG = os.open(os.environ["WATCH_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    SEEN = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo")
    HEAVY = ("flwr", "torch", "duckdb", "dp_accounting", "scipy", "opacus")

    def watch(event, values):
        if event in SEEN:
            what = repr(values[1] if event != "socket.getaddrinfo" else values[0])
        elif event == "import" and values[0] in HEAVY:
            what = values[0]
        else:
            return
        names = ("FLWR_TELEMETRY_ENABLED", "FLWR_DISABLE_UPDATE_CHECK")
        line = {
            "words": " ".join(sys.orig_argv), "event": event, "what": what,
            "flags": [os.environ.get(name) for name in names],
        }
        os.write(LOG, (json.dumps(line) + "\\n").encode())

    sys.addaudithook(watch)
"""
# A ClientApp that calls somebody else, once by Python's sockets and once by a C library.
TALKATIVE = """
    import os, socket
    import grpc
    from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict, Message
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.query("cohort")
    def cohort(message, context):
        count = MetricRecord({"cohort-count": 100.0})
        return Message(RecordDict({"metrics": count}), reply_to=message)

    @app.train()
    def train(message, context):
        by_python, by_c = os.environ["ELSEWHERE"].split()
        socket.create_connection(("127.0.0.1", int(by_python))).close()
        with grpc.insecure_channel(f"127.0.0.1:{by_c}") as channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=1)
            except grpc.FutureTimeoutError:
                pass
        content = RecordDict(
            {"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 100.0})}
        )
        return Message(content, reply_to=message)
"""


@dataclass
class Watch:
    """What the hook wrote down, and what the poll saw of a process and its children."""

    log: Path
    remote: set[tuple[str, int]] = field(default_factory=set)
    listening: set[tuple[str, int]] = field(default_factory=set)
    looks: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def poll(self, pid: int) -> None:
        while not self.over.is_set():
            try:
                root = psutil.Process(pid)
                for process in (root, *root.children(recursive=True)):
                    self._look(process)
            except psutil.Error:
                continue
            finally:
                self.looks += 1
                time.sleep(0.002)

    def _look(self, process: psutil.Process) -> None:
        for item in process.net_connections("inet"):
            if item.raddr:
                self.remote.add((item.raddr.ip.removeprefix("::ffff:"), item.raddr.port))
            if item.status == psutil.CONN_LISTEN:
                self.listening.add((item.laddr.ip, item.laddr.port))

    def lines(self, words: str, event: str) -> list[dict]:
        if not self.log.exists():
            return []
        found = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in found if words in line["words"] and line["event"] == event]

    def imports(self, words: str) -> set[str]:
        return {line["what"] for line in self.lines(words, "import")}

    def python_connections(self) -> set[str]:
        parties = ("client run", "training.worker")
        lines = [
            line
            for event in ("connect", "sendto", "sendmsg", "getaddrinfo")
            for words in parties
            for line in self.lines(words, f"socket.{event}")
        ]
        return {line["what"] for line in lines}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalConsortium, Watch]]:
    """A coordinator and one running node, every process of theirs under both watches."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "hook").mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(textwrap.dedent(HOOK))
    (folder / "hook" / "talkative.py").write_text(textwrap.dedent(TALKATIVE))
    watch = Watch(log=folder / "watch.log")
    path = os.pathsep.join([str(folder / "hook"), os.environ.get("PYTHONPATH", "")])
    with pytest.MonkeyPatch.context() as patch, LocalConsortium(folder=folder / "all") as made:
        patch.delenv("FLWR_TELEMETRY_ENABLED", raising=False)
        patch.delenv("FLWR_DISABLE_UPDATE_CHECK", raising=False)
        patch.setenv("PYTHONPATH", path)
        patch.setenv("WATCH_LOG", str(watch.log))
        made.open()
        made.enrol("oslo", [("when_allowed", "accept"), ("modes", "[local, none]")])
        home = NodeHome(folder=made.site("oslo"))
        text = home.policy_file.read_text()
        families = "model_families: [logistic_regression, talkative]"
        home.policy_file.write_text(re.sub(r"(?m)^model_families:.*$", families, text))
        value = yaml.safe_load(home.settings_file.read_text())
        value |= {
            "coordinator": f"127.0.0.1:{made.port}",
            "client_apps": {"talkative": "talkative:app"},
        }
        home.settings_file.write_text(yaml.safe_dump(value))
        (site,) = make_hospitals(folder / "exports", 4, 150, sites=1)["hospitals"]
        import_fhir(
            [folder / "exports" / site],
            home.records,
            secret=site_secret(home),
            now=datetime.now(UTC),
        )
        servers = [elsewhere(), elsewhere()]
        patch.setenv("ELSEWHERE", " ".join(str(port) for port in servers))
        node = made.start_site("oslo")
        thread = threading.Thread(target=watch.poll, args=(node.pid,))
        thread.start()
        yield made, watch
        watch.over.set()
        thread.join()


def elsewhere() -> int:
    """A server on this machine that is not the coordinator; it takes calls and says nothing."""
    import socket

    server = socket.create_server(("127.0.0.1", 0))
    kept = []

    def serve() -> None:
        while True:
            kept.append(server.accept())

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


@pytest.fixture
def carry_out(
    watched: tuple[LocalConsortium, Watch], wait_until: Callable[..., None]
) -> Callable[..., None]:
    """Add a study and wait for its end."""

    def carry(plan: StudyPlan, *options: str) -> None:
        consortium, _ = watched
        path = consortium.folder / f"{plan.study}.yaml"
        path.write_text(yaml.safe_dump(plan.model_dump(mode="json")))
        words = ("--home", str(consortium.server), *consortium.keys, *options)
        consortium.run("server", "studies", "add", str(path), *words)
        store = Home(folder=consortium.server).store()
        wait_until(lambda: store.study(plan.study).status in {"finished", "failed"}, 90, plan.study)
        record = store.study(plan.study)
        store.close()
        assert record.status == "finished", record.reason

    return carry


def summed() -> StudyPlan:
    value = plan_from_yaml(PLAN).model_dump(mode="json")
    value["sites"] |= {"quorum": 1}
    value["privacy"] |= {"mode": "local", "vote_noise": None}
    return plan_from_value(value, "the synthetic plan")


def test_a_study_of_sums_needs_neither_flower_nor_torch(
    watched: tuple[LocalConsortium, Watch], carry_out: Callable[..., None]
) -> None:
    """The first study here, because what is imported once stays."""
    _, watch = watched
    carry_out(summed())
    assert watch.imports("server run") == set()
    assert watch.imports("client run") == set()
    worker = watch.imports("training.worker")
    assert "duckdb" in worker, "the hook sees nothing"
    assert not worker & {"flwr", "torch", "opacus"}


def test_a_flower_study_makes_no_other_connection(
    watched: tuple[LocalConsortium, Watch], carry_out: Callable[..., None]
) -> None:
    consortium, watch = watched
    carry_out(flower_plan("FedAdam", {}, study="quiet-flower", sites={"quorum": 1}))
    assert watch.looks > 100
    assert watch.remote == {("127.0.0.1", consortium.port)}
    assert watch.listening == set()
    assert watch.python_connections() == set()
    assert watch.imports("client run") == set()
    assert "flwr" in watch.imports("training.worker")
    assert "flwr" in watch.imports("server run")


def test_telemetry_is_off_before_flower_is_imported(
    watched: tuple[LocalConsortium, Watch],
) -> None:
    _, watch = watched
    flower = [line for line in watch.lines("", "import") if line["what"] == "flwr"]
    parties = {"server run", "studies add", "training.worker"}
    assert {p for p in parties for line in flower if p in line["words"]} == parties
    assert [line["words"] for line in flower if line["flags"] != ["0", "1"]] == []


def test_the_watches_see_a_call_elsewhere(
    watched: tuple[LocalConsortium, Watch], carry_out: Callable[..., None], tmp_path: Path
) -> None:
    """What the other tests rely on: a ClientApp that calls out is caught, both ways."""
    consortium, watch = watched
    initial = tmp_path / "initial.safetensors"
    save_file({"own": np.zeros(1)}, initial)
    model = {"family": "talkative", "initial_sha256": sha256(initial.read_bytes()).hexdigest()}
    changes = {"sites": {"quorum": 1}, "training": {"rounds": 1}, "model": model}
    plan = flower_plan("FedAvg", {}, study="talkative-flower", **changes)
    carry_out(plan, "--initial", str(initial))
    by_python, by_c = (int(port) for port in os.environ["ELSEWHERE"].split())
    assert any(str(by_python) in what for what in watch.python_connections())
    assert ("127.0.0.1", by_c) in watch.remote
    assert not any(str(by_c) in what for what in watch.python_connections())
    assert ("127.0.0.1", consortium.port) in watch.remote
