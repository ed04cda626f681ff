"""`fedtwin demo run`: four hospitals, a coordinator and a researcher, here and now."""

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from fedtwin.demo.consortium import LocalConsortium
from fedtwin.paper import console, now, say, show_table

app = typer.Typer(rich_markup_mode=None)
HERE = Path(__file__).parent
HEART_SITES = ("cleveland", "hungarian", "switzerland", "va")
PATIENCE_S = 100.0


@app.callback()
def demo() -> None:
    """Everybody on one machine, as real processes."""


@app.command()
def run(
    heart_disease: Annotated[
        Path | None, typer.Option(help="Folder with the four UCI files, instead of synthetic data.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the closing table there too.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Keep everything in this (new) folder.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the synthetic hospitals.")] = 1,
) -> None:
    """Set up, enrol, train with privacy, publish, fetch, verify, and compare.

    Example: fedtwin demo run --heart-disease heart-disease
    """
    from fedtwin_protocol.errors import ConfigurationError

    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(f"{folder} is not empty: name a new folder")
    place = folder or Path(tempfile.mkdtemp(prefix="fedtwin-demo-"))
    try:
        with LocalConsortium(folder=place) as consortium:
            closing = _play(consortium, heart_disease, seed)
    finally:
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)
    if json_file is not None:
        json_file.write_text(json.dumps(closing, indent=2))
        say(f"the closing table is in {json_file}")


@app.command()
def simulate(
    plan: Annotated[
        Path | None, typer.Option(help="A plan of rule 'flower'; else the synthetic study, FedAvg.")
    ] = None,
    sites: Annotated[int, typer.Option(help="How many synthetic hospitals.")] = 10,
    patients: Annotated[int, typer.Option(help="In each hospital.")] = 300,
    seed: Annotated[int, typer.Option(help="Of the synthetic hospitals.")] = 1,
) -> None:
    """Learn a study on Flower's simulation engine: the same two apps, no network.

    Example: fedtwin demo simulate --sites 10
    """
    from fedtwin.demo.simulation import flower_plan, simulate_synthetic
    from fedtwin_protocol.study import plan_from_yaml

    study = plan_from_yaml(plan) if plan else flower_plan("FedAvg", {})
    began = time.monotonic()
    reports = simulate_synthetic(study, sites, patients, seed, now())
    rows = [
        [
            str(report["hospital"]),
            str(report["training_patients"]),
            str(report["held_out_patients"]),
            _number(report["before"]["accuracy"]),
            _number(report["before"]["auroc"]),
        ]
        for report in reports
    ]
    show_table("", ["hospital", "training", "held out", "accuracy", "AUROC"], rows)
    say(
        f"{study.aggregation.strategy}, {study.training.rounds} rounds, "
        f"{time.monotonic() - began:.1f} s"
    )


def _play(consortium: LocalConsortium, heart_disease: Path | None, seed: int) -> dict[str, Any]:
    from fedtwin.demo.comparison import closing_table
    from fedtwin_client.node.plain_words import as_text, describe
    from fedtwin_protocol.study import plan_from_yaml

    began = time.monotonic()
    name = "heart-disease" if heart_disease else "synthetic"
    plan_file = HERE / "plans" / f"{name}.yaml"
    plan = plan_from_yaml(plan_file)
    sites = _make_data(consortium, heart_disease, seed)
    _step("a development CA and a coordinator")
    consortium.open()
    for site in sites:
        _step(f"{site}: invited, enrolled, records read")
        consortium.enrol(site, [("when_allowed", "accept")])
        say(_import(consortium, site, heart_disease).splitlines()[0])
        consortium.start_site(site)
    _step("the study, in plain words")
    say(as_text(describe(plan)))
    trained = time.monotonic()
    home = str(consortium.server)
    consortium.run("server", "studies", "add", str(plan_file), "--home", home, *consortium.keys)
    _step("each site's policy judges the study; training")
    _follow(consortium, plan.study, plan.training.rounds)
    training_s = time.monotonic() - trained
    _step("the signers release the model; a researcher fetches and verifies it")
    consortium.run("server", "release", plan.study, "--home", home, *consortium.keys)
    invitation = str(consortium.folder / "researcher.invitation")
    consortium.run(
        *("server", "invite", "researcher", "--role", "researcher"),
        *("--home", home, "--out", invitation),
    )
    researcher = str(consortium.folder / "researcher")
    consortium.run("research", "enrol", "--invitation", invitation, "--home", researcher)
    say(consortium.run("research", "fetch", plan.study, "--home", researcher).strip())
    say(consortium.run("research", "verify", plan.study).strip())
    _step("what it is worth, hospital by hospital (these numbers stay at each hospital)")
    closing = closing_table(consortium, plan, sites, now())
    closing["training_s"] = round(training_s, 2)
    closing["total_s"] = round(time.monotonic() - began, 2)
    _print(closing)
    return closing


def _make_data(
    consortium: LocalConsortium, heart_disease: Path | None, seed: int
) -> tuple[str, ...]:
    from fedtwin.demo.synthetic import make_hospitals
    from fedtwin_protocol.errors import ConfigurationError

    if heart_disease is None:
        make_hospitals(consortium.folder / "exports", seed)
        return tuple(
            sorted(p.name for p in (consortium.folder / "exports").iterdir() if p.is_dir())
        )
    missing = [
        site for site in HEART_SITES if not (heart_disease / f"processed.{site}.data").is_file()
    ]
    if missing:
        raise ConfigurationError(
            f"{heart_disease} lacks {', '.join(f'processed.{site}.data' for site in missing)}: "
            "'fedtwin research data heart-disease' fetches them"
        )
    return HEART_SITES


def _import(consortium: LocalConsortium, site: str, heart_disease: Path | None) -> str:
    home = ("--home", str(consortium.site(site)))
    if heart_disease is None:
        export = str(consortium.folder / "exports" / site)
        return consortium.run("client", "records", "fhir", export, *home, "--server", site)
    mapping = str(HERE / "mappings" / "heart-disease.yaml")
    table = str(heart_disease / f"processed.{site}.data")
    return consortium.run("client", "records", "table", table, "--mapping", mapping, *home)


def _follow(consortium: LocalConsortium, study: str, rounds: int) -> None:
    """Show rounds as they close, until the study ends."""
    from rich.progress import Progress

    from fedtwin_protocol.errors import ConfigurationError
    from fedtwin_server.coordinator import Home

    store = Home(folder=consortium.server).store()
    deadline = time.monotonic() + PATIENCE_S
    with Progress(console=console) as progress:
        bar = progress.add_task("rounds", total=rounds)
        while time.monotonic() < deadline:
            record = store.study(study)
            progress.update(bar, completed=store.rounds_closed(study))
            if record.status in {"finished", "failed", "stopped"}:
                break
            time.sleep(0.05)
    store.close()
    if record.status != "finished":
        logs = "\n".join(path.read_text()[-800:] for path in consortium.folder.glob("*.log"))
        raise ConfigurationError(f"the study is {record.status}: {record.reason}\n{logs}")


def _step(text: str) -> None:
    console.rule(text, align="left")


def _print(closing: dict[str, Any]) -> None:
    rows = []
    for site, facts in closing["sites"].items():
        before, after, pooled = facts["before"], facts["after"], facts["pooled"]
        rows.append(
            [
                site,
                str(facts["held_out_patients"]),
                f"{before['accuracy']:.3f}",
                f"{after['accuracy']:.3f}",
                f"{pooled['accuracy']:.3f}",
                _number(before["auroc"]),
                _number(pooled["auroc"]),
                f"{before['brier']:.3f}",
                f"{after['brier']:.3f}",
                f"{facts['epsilon']:.3f}",
                str(facts["bytes_sent"]),
            ]
        )
    headings = [
        "hospital",
        "held out",
        "accuracy",
        "recalibrated",
        "pooled data",
        "AUROC",
        "pooled data",
        "Brier",
        "recalibrated",
        "epsilon",
        "bytes sent",
    ]
    show_table("", headings, rows)
    say(f"training {closing['training_s']} s, everything {closing['total_s']} s")


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"  # noqa: PLR0124 - NaN
