"""A node and a researcher whose only way out is an HTTP CONNECT proxy."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
import yaml

from fedtwin.demo.consortium import LocalConsortium, free_port
from fedtwin.demo.simulation import flower_plan
from fedtwin.demo.synthetic import make_hospitals
from fedtwin_client.assemble import site_secret
from fedtwin_client.node.home import NodeHome
from fedtwin_client.store.imports import import_fhir
from fedtwin_protocol.errors import ConfigurationError
from fedtwin_server.coordinator import Home

NAME = "coordinator.invalid"  # a name that no machine can look up (RFC 6761)


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalConsortium]:
    """A coordinator that is known by a name which only the proxy can look up."""
    folder = tmp_path_factory.mktemp("proxy")
    with pytest.MonkeyPatch.context() as patch, LocalConsortium(folder=folder) as made:
        # What the environment says of proxies must not change the way out.
        patch.setenv("no_proxy", f"{NAME},127.0.0.1,localhost")
        patch.setenv("https_proxy", "http://127.0.0.1:9")
        made.port = free_port()
        made.run(
            *("server", "init", "--home", str(made.server), "--consortium", made.name),
            *("--address", NAME, "--listen", "127.0.0.1", "--port", str(made.port)),
            *("--signer", "first-signer", "--signer", "second-signer", "--threshold", "2"),
        )
        made.start_server()
        yield made


def invitation(consortium: LocalConsortium, name: str, role: str = "site") -> str:
    path = consortium.folder / f"{name}.invitation"
    if not path.exists():
        home = ("--home", str(consortium.server), "--out", str(path))
        consortium.run("server", "invite", name, "--role", role, *home)
    return str(path)


def enrol(consortium: LocalConsortium, name: str, proxy: str) -> None:
    home = str(consortium.site(name))
    papers = invitation(consortium, name)
    consortium.run("client", "enrol", "--invitation", papers, "--home", home, "--proxy", proxy)


def test_the_whole_line_goes_through_the_proxy(
    behind: LocalConsortium, connect_proxy: type, wait_until: Callable[..., None]
) -> None:
    target = f"{NAME}:{behind.port}"
    proxy = connect_proxy({target: f"127.0.0.1:{behind.port}"}, user="nina:s3cret")
    way = proxy.url.replace("//", "//nina:s3cret@")
    enrol(behind, "oslo", way)
    home = NodeHome(folder=behind.site("oslo"))
    text = home.policy_file.read_text()
    for key, value in (("when_allowed", "accept"), ("modes", "[local, none]")):
        text = re.sub(rf"(?m)^{key}:.*$", f"{key}: {value}", text)
    home.policy_file.write_text(text)
    exports = behind.folder / "exports"
    (site,) = make_hospitals(exports, 4, 150, sites=1)["hospitals"]
    now = datetime.now(UTC)
    import_fhir([exports / site], home.records, secret=site_secret(home), now=now)
    behind.start_site("oslo")

    plan = flower_plan("FedAvg", {}, sites={"quorum": 1}, training={"rounds": 3})
    path = behind.folder / "plan.yaml"
    path.write_text(yaml.safe_dump(plan.model_dump(mode="json")))
    server = ("--home", str(behind.server), *behind.keys)
    behind.run("server", "studies", "add", str(path), *server)
    store = Home(folder=behind.server).store()
    wait_until(lambda: store.study(plan.study).status == "finished", 60, "the study's end")
    store.close()
    behind.run("server", "release", plan.study, *server)

    papers = invitation(behind, "ada", "researcher")
    library = str(behind.folder / "ada")
    behind.run("research", "enrol", "--invitation", papers, "--home", library, "--proxy", way)
    assert "is verified" in behind.run("research", "fetch", plan.study, "--home", library)
    checked = behind.run("client", "check", "--network", "--home", str(home.folder))
    assert "ok   proxy: connects to" in checked
    assert set(proxy.asked) == {target}
    assert "s3cret" not in (behind.folder / "oslo.log").read_text()


def test_a_proxy_that_refuses_or_is_down_is_said(
    behind: LocalConsortium, connect_proxy: type
) -> None:
    """And the invitation is not spent by it."""
    refusing = connect_proxy({})
    with pytest.raises(ConfigurationError, match=r"was not reached.*403"):
        enrol(behind, "bergen", refusing.url)
    assert refusing.asked
    with pytest.raises(ConfigurationError, match=r"was not reached: nobody listens there"):
        enrol(behind, "bergen", f"http://127.0.0.1:{free_port()}")
    for wrong in ("https://127.0.0.1:3128", "127.0.0.1:3128", "http://proxy"):
        with pytest.raises(ConfigurationError, match="expected a proxy such as"):
            enrol(behind, "bergen", wrong)
    good = connect_proxy({f"{NAME}:{behind.port}": f"127.0.0.1:{behind.port}"})
    enrol(behind, "bergen", good.url)


def test_a_running_node_says_that_the_proxy_went_away_and_comes_back(
    behind: LocalConsortium, connect_proxy: type, wait_until: Callable[..., None]
) -> None:
    target = f"{NAME}:{behind.port}"
    proxy = connect_proxy({target: f"127.0.0.1:{behind.port}"})
    enrol(behind, "tromso", proxy.url)
    behind.start_site("tromso")
    log = behind.folder / "tromso.log"

    def said(text: str) -> int:
        return log.read_text().count(text)

    wait_until(lambda: said("the link to the coordinator is up") == 1, 30, "the first link")
    proxy.ways.clear()
    proxy.cut()
    wait_until(lambda: said("no link: ") >= 1 and said("403") >= 1, 30, "the refusal in the log")
    proxy.ways[target] = f"127.0.0.1:{behind.port}"
    wait_until(lambda: said("the link to the coordinator is up") == 2, 30, "the second link")
