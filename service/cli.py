"""The commands of discnode."""

import argparse
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from config.phantom_templates import load_templates
from config.protocol_cards import load_cards
from config.settings import Settings, SettingsError, load_settings
from service import (
    atlas_command,
    audit_command,
    deliveries_command,
    evaluate_command,
    jobs_command,
    notify_command,
    operate_command,
    protocol_command,
    quarantine_command,
    release_command,
    simulate_command,
    train_command,
    tune_command,
    web_token_command,
)
from service.cohort import command as cohort_command
from service.migrations import DatabaseRefused
from service.trials import command as trial_command

if TYPE_CHECKING:
    from models.registry import ModelRecord
    from processing.results import Level
    from service.database import Database

EXIT_OK, EXIT_BUG, EXIT_USAGE, EXIT_REFUSED = 0, 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (0 made, 1 bug, 2 wrong use or settings, 3 input refused)."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except (SettingsError, DatabaseRefused) as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    except SQLAlchemyError as error:  # what it says may quote values
        kind = type(getattr(error, "orig", None) or error).__name__
        print(f"the database cannot be used now ({kind}): {_storage_of(options)}", file=sys.stderr)
        return EXIT_BUG
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _storage_of(options: argparse.Namespace) -> str:
    settings = load_settings(getattr(options, "config", None))
    return "see database_url" if settings.database_url else str(settings.storage_dir)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="discnode", description="T1rho and T2 of lumbar discs. For research use only."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_node(commands)
    _add_work_on_files(commands)
    simulate_command.add_arguments(commands.add_parser("simulate", help="writes a simulated exam with known truth"))
    _add_adapting(commands)
    _add_looking_after(commands)
    many = (
        ("trial", "subjects over time: plans, visits, change, reports, exports", trial_command.add_arguments),
        ("cohort", "voxel-wise statistics of many exams", cohort_command.add_arguments),
    )
    for name, text, add in many:
        add(commands.add_parser(name, help=text), _load)
    return parser


def _add_node(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    demo = commands.add_parser("demo", help="simulated scanner -> C-STORE -> node -> results at a receiving node")
    demo.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything it makes (default: demo)")
    demo.add_argument("--seed", type=int, default=1)
    demo.set_defaults(command=_demo)

    serve = commands.add_parser("serve", help="the node")
    serve.add_argument("--config", type=Path, required=True, help="settings file (YAML)")
    serve.set_defaults(command=_serve)

    check = commands.add_parser(
        "check-config", help="says what is wrong in a settings file, where, and what is allowed"
    )
    check.add_argument("file", type=Path)
    check.set_defaults(command=_check_config)


def _add_work_on_files(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    process = commands.add_parser("process", help="the same pipeline on files, no network")
    process.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="DICOM files or folders of one exam")
    process.add_argument(
        "--out", type=Path, required=True, help="folder for result.json, discs.csv, qc*.png and dicom/"
    )
    process.add_argument("--config", type=Path, help="settings file (YAML)")
    _add_lowest_disc(process)
    process.add_argument(
        "--mask",
        type=Path,
        metavar="SEG",
        help="your discs, measured in place of the networks': a DICOM Segmentation, or .nii.gz, .mha (1 = L5S1 ...)",
    )
    process.set_defaults(command=_process)


def _add_adapting(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    evaluate = commands.add_parser("evaluate", help="the network against your own annotated exams: tables and figures")
    evaluate_command.add_arguments(evaluate)
    evaluate.set_defaults(command=_evaluate)
    train = commands.add_parser("train", help="prepare your annotated exams, train on them, export, install if better")
    train_command.add_arguments(train)
    others = (
        ("atlas", "the level atlases: which there are, and your own from annotated discs", atlas_command.add_arguments),
        ("tune", "adapt a step of the analysis to your own exams", tune_command.add_arguments),
        (
            "protocol",
            "how the images of an exam are understood, and new protocol cards",
            protocol_command.add_arguments,
        ),
    )
    for name, text, add in others:
        add(commands.add_parser(name, help=text), _load)


def _add_looking_after(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    exams = commands.add_parser("exams", help="how far each exam is, and what it waits for").add_subparsers(
        required=True, metavar="ACTION"
    )
    action = exams.add_parser("list")
    action.add_argument("--config", type=Path, help="settings file of the node (YAML)")
    action.set_defaults(command=_exams_list)
    jobs = commands.add_parser("jobs", help="analyses: queued, running, done, failed")
    jobs_command.add_arguments(jobs, _load, _add_lowest_disc)
    operate_command.add_restore(commands.add_parser("restore", help="a storage folder from a backup"))
    web_token_command.add_arguments(
        commands.add_parser("web-token", help="who may use the HTTP API: new, list, remove")
    )
    others = (
        ("backup", "a whole copy of a node that goes on running", operate_command.add_backup),
        ("retention", "deletes, or with --dry-run lists, what has had its time", operate_command.add_retention),
        ("quarantine", "what was held, and why", quarantine_command.add_arguments),
        ("release", "results that a person must let go: approve, reject, query, recall", release_command.add_arguments),
        ("deliveries", "results on their way: waiting, sent, confirmed", deliveries_command.add_deliveries),
        ("reconcile", "compare what was sent with what the destinations have", deliveries_command.add_reconcile),
        ("audit", "the audit trail: who did what, and whether it was tampered with", audit_command.add_arguments),
        ("notify", "notifications: whether they arrive", notify_command.add_arguments),
    )
    for name, text, add in others:
        add(commands.add_parser(name, help=text), _load)


def _add_lowest_disc(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--lowest-disc",
        type=_level,
        metavar="LEVEL",
        help="your word on the lowest disc in view, e.g. L4L5: names are counted from it; the result says so",
    )


def _level(text: str) -> "Level":
    """A level named on the command line, with or without a dash or slash."""
    from processing.results import Level

    name = text.upper().replace("-", "").replace("/", "")
    if name not in Level.__members__:
        allowed = ", ".join(Level.__members__)
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a disc; allowed: {allowed}")
    return Level[name]


def _load(path: Path | None) -> Settings:
    """Settings whose protocol cards, atlas and elastix parameters are in order too."""
    from processing.atlas import AtlasError, read_atlas
    from processing.elastix_parameters import registration_parameters

    settings = load_settings(path)
    load_cards(settings.protocols_dir)
    load_templates(settings.phantoms_dir)
    try:
        read_atlas(settings.registration.atlas)
    except AtlasError as error:
        raise SettingsError(f"registration.atlas: {error}") from error
    for dimension in (2, 3):
        registration_parameters(dimension, settings.registration.preset, 1, settings.registration.parameters_dir)
    return settings


def _load_networks(settings: Settings) -> "ModelRecord":
    """The ensemble of the settings, its files checked."""
    from models.registry import ModelError, load_model

    try:
        return load_model(settings.segmentation.model, settings.segmentation.weights_dir)
    except ModelError as error:
        raise SettingsError(f"segmentation: {error}") from error


def _check_config(options: argparse.Namespace) -> int:
    from processing.atlas import read_atlas
    from service.doors import check_doors

    settings = _load(options.file)
    cards = load_cards(settings.protocols_dir)
    record = _load_networks(settings)
    notes = check_doors(settings)
    print(f"{options.file}: in order")
    print(f"  listens as {settings.ae_title} on {settings.bind}:{settings.port}; data in {settings.storage_dir}")
    if settings.tls is not None:
        print(f"  listens by TLS ({settings.tls.profile}) on {settings.bind}:{settings.tls.port}")
    callers = ", ".join(dict.fromkeys(peer.ae_title for peer in settings.peers))
    print(f"  serves {callers or 'callers on this machine'}")
    addresses = [f"{one.name} ({one.address})" for one in settings.destinations]
    print(f"  sends to {', '.join(addresses) or 'nobody'}")
    for destination in settings.destinations:
        if destination.tells_secrets:
            print(
                f"  WARNING: the headers of {destination.name} can be read on the way by anyone; give an https address"
            )
    channels = notify_command.check_channels(settings)
    print(f"  tells {', '.join(channels) or 'nobody'} when something needs a person")
    syslog = settings.audit.syslog
    print(f"  keeps its audit trail{'' if syslog is None else f', also at {syslog.host}:{syslog.port}'}")
    print(f"  knows the protocols {', '.join(card.name for card in cards)}")
    networks = "1 network" if len(record.members) == 1 else f"{len(record.members)} networks"
    threshold = settings.segmentation.threshold or record.threshold
    print(f"  finds discs with {record.name}, version {record.version} ({networks}, threshold {threshold:g})")
    atlas = read_atlas(settings.registration.atlas)
    print(f"  registers to the atlas {atlas.name} (sha256 {atlas.sha256[:16]}; {atlas.licence})")
    for note in notes:
        print(f"  note: {note}")
    return EXIT_OK


def _serve(options: argparse.Namespace) -> int:
    from service.app import run_node

    return run_node(_load(options.config))


def _demo(options: argparse.Namespace) -> int:
    from service.demo import run_demo

    return run_demo(options.out, seed=options.seed)


def _process(options: argparse.Namespace) -> int:
    from models.registry import ModelError
    from service.pipeline import analyse_job
    from service.progress import show_progress

    given = [] if options.mask is None else [options.mask]
    missing = [path for path in (*options.paths, *given) if not path.exists()]
    if missing:
        print(f"no such file or folder: {', '.join(map(str, missing))}", file=sys.stderr)
        return EXIT_USAGE
    settings = _load(options.config)
    _load_networks(settings)  # a wrong name or hash is told before any work
    try:
        with show_progress("process") as progress:
            summary = analyse_job(
                options.paths,
                options.out,
                settings,
                datetime.now(UTC),
                progress=progress,
                lowest_disc=options.lowest_disc,
                mask=options.mask,
            )
    except ModelError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    for reason in summary.reasons:
        print(f"{reason.code}: {reason.detail}", file=sys.stderr)
    print(f"{summary.status}: {options.out / 'result.json'}")
    return EXIT_REFUSED if summary.status == "refused" else EXIT_OK


def _evaluate(options: argparse.Namespace) -> int:
    return evaluate_command.evaluate(options, _load(options.config))


def _exams_list(options: argparse.Namespace) -> int:
    from service.exams import list_exams

    for exam in list_exams(_database(options)):
        print(f"{exam.id:6d}  {exam.state:10s}  {exam.n_objects:5d} objects  {exam.study_uid}  {exam.detail}")
    return EXIT_OK


def _database(options: argparse.Namespace) -> "Database":
    from service.database import open_database

    return open_database(_load(options.config))


if __name__ == "__main__":
    sys.exit(main())
