"""The one entry to the benchmarks; `scripts/bench` calls it.

Each module of this folder that is named below has `measure(options) -> list[Figure]`.
"""

import argparse
import importlib
import json
import sys
from pathlib import Path

from figures import Figure

MODULES = {
    "heart_local": (
        "heart-accuracy",
        "heart-accuracy-recalibrated",
        "heart-accuracy-dp",
        "heart-auroc-dp",
        "heart920-auroc-dp",
    ),
    "heart_secure": (
        "secure-heart-accuracy",
        "secure-heart-auroc",
        "secure-heart-auroc-eps025",
        "secure-heart-below-pooled",
    ),
    "poisoning": ("poisoning-auroc-loss",),
    "brca_local": ("brca-cindex", "brca-cindex-dp"),
    "iwpc": ("iwpc-mae", "iwpc-mae-new-site", "iwpc-mae-dp"),
    "ledger": ("ledger-over-pld",),
    "small_rounds": ("round-overhead-ms", "cold-start-s", "coordinator-mb", "agent-mb"),
    "small_bytes": ("round-bytes",),
    "big_model": ("big-model-round-s", "big-model-wire-ratio", "big-model-peak-mb"),
    "resume": ("resume-s",),
    "dp_step": ("dp-step-ratio",),
    "transformer_step": ("transformer-dp-step-ratio",),
    "noise_share": ("noise-share-error",),
    "secure_rounds": ("secure-round-overhead-ms",),
    "secure_sum": (
        "secure-sum-site-cpu-s",
        "secure-sum-coordinator-cpu-s",
        "secure-sum-upload-ratio",
    ),
    "kinetics_engines": (
        "closed-form-per-s",
        "kinetics-effect-per-s",
        "ode-eager-per-s",
        "ode-compiled-per-s",
    ),
    "lira": ("lira-tpr",),
    "fhir_ingest": (
        "fhir-ingest-over-parse",
        "fhir-ingest-harder-over-parse",
        "fhir-ingest-peak-mb",
    ),
    "cohort_scale": ("cohort-over-pandas", "cohort-cpu-s", "readiness-cpu-s"),
    "mllp": ("mllp-per-s",),
    "patient_timeline": ("patient-timeline-ms",),
    "mqtt": ("mqtt-per-s",),
    "live_latency": ("live-readable-s", "live-told-s"),
    "advice": ("advice-s",),
    "procova": ("procova-type1", "procova-variance"),
    "pharmacology_cases": ("pharmacology-cases",),
    "belief_published": ("map-max-eta-difference",),
    "belief_speed": ("map-per-s",),
    "belief_coverage": ("interval-coverage",),
    "at_rest": ("at-rest-import-ratio", "at-rest-scan-ratio", "at-rest-sqlite-ratio"),
}
WHAT = {
    "heart-accuracy": "accuracy, mean of four hospitals, FLamby's rows and split, no noise",
    "heart-accuracy-recalibrated": "the same after local recalibration, mean of 20 re-splits",
    "heart-accuracy-dp": "accuracy at epsilon 1, delta 1e-5, FLamby's split, mean of 20 seeds",
    "heart-auroc-dp": "AUROC at epsilon 1, mean of three hospitals over 20 re-splits",
    "heart920-auroc-dp": "the same on all 920 rows, missing values flagged",
    "secure-heart-accuracy": "secure sums, epsilon 1: accuracy, FLamby's split, mean of 20 seeds",
    "secure-heart-auroc": "secure sums, epsilon 1: AUROC, three hospitals, mean of 20 re-splits",
    "secure-heart-auroc-eps025": "the same at epsilon .25",
    "secure-heart-below-pooled": "AUROC that secure sums lose to pooled training, equal epsilon",
    "poisoning-auroc-loss": "AUROC that honest hospitals lose to one that lies, worst rule and lie",
    "brca-cindex": "Fed-TCGA-BRCA, hazard, pooled C-index, mean of 20 re-splits, no noise",
    "brca-cindex-dp": "the same at epsilon 1, delta 1e-3",
    "iwpc-mae": "warfarin dose, 17 sites, 5 folds: mean absolute error, own patients added",
    "iwpc-mae-new-site": "the same for a site that was left out; baseline: published algorithm",
    "iwpc-mae-dp": "learned at epsilon 1, delta 1e-5 beyond the published algorithm, 5 folds",
    "ledger-over-pld": "the ledger's epsilon over that of the steps taken, worst of many histories",
    "round-overhead-ms": "a steady round beyond the sites' own computing, 4 sites, 13 features",
    "cold-start-s": "from no process running to a finished model of 20 rounds, 4 sites",
    "coordinator-mb": "peak memory of the coordinator in that run",
    "agent-mb": "peak memory of a site's agent in that run, the largest",
    "round-bytes": "bytes on the wire in a steady round, both ways, all 4 sites together",
    "big-model-round-s": "a round with 100 MB of random float32, 4 sites, mean of 3 rounds",
    "big-model-wire-ratio": "bytes on the wire in such a round over the unavoidable 800 MB",
    "big-model-peak-mb": "peak memory of the coordinator in such a study",
    "resume-s": "coordinator killed in mid-round: from its restart to the next closed round",
    "noise-share-error": "sd of a secure sum's noise beside the plan's, 2 to 16 sites, one gone",
    "secure-round-overhead-ms": "a steady secure round beyond computing, 4 sites, 13 features",
    "secure-sum-site-cpu-s": "CPU of a site in a secure sum of 25 M values, 10 sites, 3 vanish",
    "secure-sum-coordinator-cpu-s": "CPU of the coordinator in that sum, unmasking included",
    "secure-sum-upload-ratio": "bytes that a site sends in it over those of a float32 model",
    "closed-form-per-s": "patients a CPU second: 2 compartments, oral, 60 doses, 200 times",
    "kinetics-effect-per-s": "the same with an indirect response along it; baseline: equations",
    "ode-eager-per-s": "all of that by Runge-Kutta in steps of .3 h, operation by operation",
    "ode-compiled-per-s": "the same with the step compiled; baseline: not compiled",
    "lira-tpr": "members found by LiRA at epsilon 1 where 1 % of others are taken for members",
    "transformer-dp-step-ratio": "the same, transformer of 2 layers of 64, 128 records, batch 64",
    "fhir-ingest-over-parse": "import of 1 M Observations, encrypted, over simdjson's bare parse",
    "fhir-ingest-harder-over-parse": "the same of 300,000 lines with much beside the value",
    "fhir-ingest-peak-mb": "peak memory of an import of 2 M Observations; baseline: of 1 M",
    "cohort-over-pandas": "12 labs x 5 summaries, 100,000 patients, 17 M events: pandas over ours",
    "cohort-cpu-s": "CPU seconds of that, selection of the patients included; baseline: pandas",
    "readiness-cpu-s": "CPU seconds of a readiness report of the 12 labs; baseline: pandas' cohort",
    "patient-timeline-ms": "one patient of 100,000, 17 million events encrypted, live ones too",
    "mqtt-per-s": "messages of QoS 1 a second, each on disk before its ack, real broker",
    "live-readable-s": "from a result's arrival by MLLP, MQTT or a poll until it is read, slowest",
    "live-told-s": "the same until its subscriber is told, all under load, compactions beside it",
    "pharmacology-cases": "published cases that are met, each to its own tolerance",
    "map-max-eta-difference": "most probable effects beside NONMEM's and Monolix's, the worst",
    "map-per-s": "most probable effects, 5 levels, 5 effects, 10 doses; baseline: scipy",
    "interval-coverage": "90 % intervals of 1,000 patients, worst of 5 effects; baseline: normal",
    "at-rest-import-ratio": "an import of 100,000 values into encrypted timelines over plain ones",
    "at-rest-scan-ratio": "a cohort's scan of encrypted timelines over plain ones",
    "at-rest-sqlite-ratio": "100,200 rows written and read by SQLCipher over plain SQLite",
    "mllp-per-s": "HL7 v2 messages of five results stored and acknowledged, 8 connections",
    "advice-s": "a patient's fit, forecast with bands and ten candidates; baseline: one by one",
    "procova-type1": "error of the first kind in 10,000 null trials, off its 5 %; baseline: plain",
    "procova-variance": "realised variance, adjusted over plain, off 1 - R^2; baseline: 1 - R^2",
    "dp-step-ratio": "a clipped and noised step over a plain one, 100-64-64-1, 2,048 patients",
}


def main() -> int:
    """Entry point: 0 if every figure asked for was measured."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure fedtwin beside peers and limits. Figures run over real processes "
        "with mutual TLS where that is what they are about.",
        epilog="example: scripts/bench round-overhead-ms cold-start-s --json figures.json",
    )
    parser.add_argument("names", nargs="*", metavar="FIGURE", help="which; none: all")
    parser.add_argument("--list", action="store_true", help="say which figures there are")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument(
        "--heart-disease",
        type=Path,
        default=None,
        metavar="DIR",
        help="the four UCI files; 'fedtwin research data heart-disease' fetches them",
    )
    parser.add_argument(
        "--fed-tcga-brca",
        type=Path,
        default=None,
        metavar="DIR",
        help="FLamby's brca.csv and train_test_split.csv",
    )
    parser.add_argument(
        "--pharmacology-cases",
        type=Path,
        default=None,
        metavar="DIR",
        help="published cases of pharmacokinetics, such as M03_tobramycin.json",
    )
    parser.add_argument(
        "--iwpc",
        type=Path,
        default=None,
        metavar="FILE",
        help="the consortium's table as CSV, plain or gzipped",
    )
    options = parser.parse_args()
    if options.list:
        for name, text in WHAT.items():
            print(f"{name:30} {text}")
        return 0
    unknown = [name for name in options.names if name not in WHAT]
    if unknown:
        parser.error(f"there is no figure {', '.join(unknown)}: see --list")
    wanted = set(options.names or WHAT)
    found: list[Figure] = []
    for module, names in MODULES.items():
        if wanted & set(names):
            print(f"{', '.join(n for n in names if n in wanted)} …", file=sys.stderr, flush=True)
            options.wanted = wanted & set(names)
            measured = importlib.import_module(module).measure(options)
            found += [figure for figure in measured if figure.id in wanted]
    _print(found)
    if options.json is not None:
        options.json.write_text(json.dumps([figure.to_json() for figure in found], indent=2))
    missing = wanted - {figure.id for figure in found}
    if missing:
        print(f"not measured: {', '.join(sorted(missing))}", file=sys.stderr)
    return 1 if missing else 0


def _print(found: list[Figure]) -> None:
    print(f"{'figure':30} {'value':>10} {'baseline':>10} {'ratio':>8} {'goal':>10}  unit")
    for figure in found:
        sign = ">=" if figure.higher_is_better else "<="
        mark = "" if figure.reached else "  NOT REACHED"
        print(
            f"{figure.id:30} {figure.value:10.4g} {figure.baseline:10.4g} {figure.ratio:8.3f} "
            f"{sign}{figure.goal:8.4g}  {figure.unit}{mark}"
        )


if __name__ == "__main__":
    sys.exit(main())
