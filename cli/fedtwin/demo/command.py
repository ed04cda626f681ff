"""`fedtwin demo`: four hospitals, a coordinator and a researcher, here and now."""

import json
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from fedtwin.demo.consortium import LocalConsortium
from fedtwin.paper import console, now, refuse_misplaced, say, show_table

app = typer.Typer(rich_markup_mode=None, invoke_without_command=True)
HERE = Path(__file__).parent
HEART_SITES = ("cleveland", "hungarian", "switzerland", "va")
HeartDisease = Annotated[
    Path | None, typer.Option(help="Folder with the four UCI files, instead of synthetic data.")
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the closing table there too.")]
Folder = Annotated[Path | None, typer.Option(help="Keep everything in this (new) folder.")]
Seed = Annotated[int, typer.Option(help="Of the synthetic hospitals.", min=0)]
OPTIONS = ("heart_disease", "json_file", "folder", "seed")


@app.callback()
def demo(
    context: typer.Context,
    heart_disease: HeartDisease = None,
    json_file: JsonFile = None,
    folder: Folder = None,
    seed: Seed = 1,
) -> None:
    """Everybody on one machine, as real processes: set up, train, publish, verify, compare.

    Example: fedtwin demo --heart-disease heart-disease
    """
    if context.invoked_subcommand is None:
        run(heart_disease, json_file, folder, seed)
        return
    for name in OPTIONS:
        refuse_misplaced(context, name)


@app.command()
def run(
    heart_disease: HeartDisease = None,
    json_file: JsonFile = None,
    folder: Folder = None,
    seed: Seed = 1,
) -> None:
    """The same as 'fedtwin demo' alone.

    Example: fedtwin demo run --json table.json --folder kept
    """
    _check_places(heart_disease, json_file, folder)
    signal.signal(signal.SIGTERM, _stop)
    place = folder or Path(tempfile.mkdtemp(prefix="fedtwin-demo-"))
    try:
        with LocalConsortium(folder=place) as consortium:
            closing = _play(consortium, heart_disease, seed)
    finally:
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)
    if json_file is not None:
        json_file.write_text(json.dumps(closing, indent=2) + "\n")
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
    from fedtwin.demo.table import number
    from fedtwin_protocol.study import plan_from_yaml

    study = plan_from_yaml(plan) if plan else flower_plan("FedAvg", {})
    began = time.monotonic()
    reports = simulate_synthetic(study, sites, patients, seed, now())
    rows = [
        [
            str(report["hospital"]),
            str(report["training_patients"]),
            str(report["held_out_patients"]),
            number(report["before"]["accuracy"]),
            number(report["before"]["auroc"]),
        ]
        for report in reports
    ]
    show_table("", ["hospital", "training", "held out", "accuracy", "AUROC"], rows)
    say(
        f"{study.aggregation.strategy}, {study.training.rounds} rounds, "
        f"{time.monotonic() - began:.1f} s"
    )


def _stop(*_: object) -> None:
    """End as Ctrl-C does, so that no process is left behind."""
    raise KeyboardInterrupt


def _check_places(heart_disease: Path | None, json_file: Path | None, folder: Path | None) -> None:
    """Find out now, and not at the end, that a file or folder cannot be used.

    Raises:
        ConfigurationError: says which.
    """
    from fedtwin_protocol.credentials import check_writable
    from fedtwin_protocol.errors import ConfigurationError

    if folder is not None and folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"{folder} is a file: name a new folder with --folder")
    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(f"{folder} is not empty: name a new folder with --folder")
    if folder is not None:
        check_writable(folder)
    if json_file is not None and (json_file.is_dir() or not json_file.parent.is_dir()):
        raise ConfigurationError(
            f"{json_file} cannot be written: expected a file's name in a folder that exists"
        )
    if heart_disease is None:
        return
    names = [f"processed.{site}.data" for site in HEART_SITES]
    missing = [name for name in names if not (heart_disease / name).is_file()]
    if missing:
        raise ConfigurationError(
            f"{heart_disease} lacks {', '.join(missing)}: 'fedtwin research data heart-disease "
            f"--folder {heart_disease}' fetches them"
        )


def _play(consortium: LocalConsortium, heart_disease: Path | None, seed: int) -> dict[str, Any]:
    from fedtwin.demo.comparison import closing_table
    from fedtwin.demo.following import follow, signed_plan
    from fedtwin.demo.table import show_closing
    from fedtwin_client.node.plain_words import as_text, describe
    from fedtwin_protocol.study import plan_from_yaml

    began = time.monotonic()
    plan_file = HERE / "plans" / ("heart-disease.yaml" if heart_disease else "synthetic.yaml")
    plan = plan_from_yaml(plan_file)
    sites = _make_data(consortium, heart_disease, seed)
    _step("a development CA and a coordinator")
    consortium.open()
    say(f"a coordinator listens on localhost:{consortium.port}, mutual TLS 1.3 only")
    for site in sites:
        _step(f"{site}: invited, enrolled, records read")
        consortium.enrol(site, [("when_allowed", "accept")])
        say(*_in_short(_import(consortium, site, heart_disease)))
        consortium.start_site(site)
    _step("the study, in plain words")
    say(as_text(describe(plan)))
    opened = time.monotonic()
    home = str(consortium.server)
    consortium.run("server", "studies", "add", str(plan_file), "--home", home, *consortium.keys)
    plan = signed_plan(consortium, plan.study)
    _step("each hospital's policy judges the study, and training begins")
    taking_part = follow(consortium, plan, sites)
    trained = time.monotonic()
    _step("the signers release the model; a researcher fetches and verifies it")
    _publish(consortium, plan.study)
    _step("what it is worth, hospital by hospital (these numbers stay at each hospital)")
    closing = closing_table(consortium, plan, taking_part, now())
    closing["training_s"] = round(trained - opened, 2)
    closing["total_s"] = round(time.monotonic() - began, 2)
    show_closing(closing)
    return closing


def _make_data(
    consortium: LocalConsortium, heart_disease: Path | None, seed: int
) -> tuple[str, ...]:
    from fedtwin.demo.synthetic import make_hospitals

    if heart_disease is not None:
        return HEART_SITES
    return tuple(sorted(make_hospitals(consortium.folder / "exports", seed)["hospitals"]))


def _import(consortium: LocalConsortium, site: str, heart_disease: Path | None) -> str:
    home = ("--home", str(consortium.site(site)))
    if heart_disease is None:
        export = str(consortium.folder / "exports" / site)
        return consortium.run("client", "records", "fhir", export, *home, "--server", site)
    mapping = str(HERE / "mappings" / "heart-disease.yaml")
    table = str(heart_disease / f"processed.{site}.data")
    return consortium.run("client", "records", "table", table, "--mapping", mapping, *home)


def _in_short(report: str) -> list[str]:
    """The head of an import report, and how many reasons for not using something it names."""
    lines = report.splitlines()
    place = lines.index("  not used") if "  not used" in lines else len(lines)
    rest = [line for line in lines[place + 1 :] if line[:10].strip().replace(",", "").isdigit()]
    unused = sum(int(line[:10].replace(",", "")) for line in rest)
    head = [line for line in lines[:place] if line.strip()]
    return [*head, f"  {'not used':<14} {unused:,} for {len(rest)} reasons"] if rest else head


def _publish(consortium: LocalConsortium, study: str) -> None:
    home = ("--home", str(consortium.server))
    consortium.run("server", "release", study, *home, *consortium.keys)
    invitation = str(consortium.folder / "researcher.invitation")
    consortium.run(
        *("server", "invite", "researcher", "--role", "researcher"), *home, "--out", invitation
    )
    researcher = ("--home", str(consortium.folder / "researcher"))
    consortium.run("research", "enrol", "--invitation", invitation, *researcher)
    say(consortium.run("research", "fetch", study, *researcher).strip())
    say(consortium.run("research", "verify", study).strip())


def _step(text: str) -> None:
    console.rule(text, align="left")
