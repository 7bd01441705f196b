"""``discnode simulate``: a simulated exam with known truth, as DICOM files."""

import argparse
import sys
from pathlib import Path
from typing import Any

from config.phantom_templates import load_templates

_OK, _USAGE = 0, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("--out", type=Path, required=True, help="folder for the DICOM files")
    parser.add_argument("--protocol", choices=("mapss", "t1rho-fse"), default="mapss")
    parser.add_argument(
        "--vendor", choices=("ge", "philips", "siemens"), default="ge", help="whose headers to imitate (default: ge)"
    )
    parser.add_argument("--enhanced", action="store_true", help="Enhanced MR, one object for many images")
    parser.add_argument(
        "--one-echo-time", action="store_true", help="as GE sequences that write one EchoTime into all images"
    )
    parser.add_argument("--one-scan", action="store_true", help="philips: T1rho and T2 in one scan, not in two")
    parser.add_argument("--phase-images", action="store_true", help="philips: phase images beside the magnitude")
    parser.add_argument("--phantom", action="store_true", help="a QC phantom with vials of known times, not a spine")
    parser.add_argument(
        "--subject",
        default=None,
        help="PatientID (default: PHANTOM-001, of vials QC-VIALS); the same subject keeps its anatomy",
    )
    parser.add_argument("--visit", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--snr", type=float, default=40.0, help="mean disc signal of the first echo over the noise SD")
    parser.add_argument("--slices", type=int, default=None, help="default: 12 for mapss, 1 for t1rho-fse")
    parser.add_argument("--truth", type=Path, help="also write labels, t1rho_ms, t2_ms and affine to this .npz")
    parser.set_defaults(command=_simulate)


def _simulate(options: argparse.Namespace) -> int:
    from dicom_io.simulated_scanner import check_flavour, write_exam, write_truth
    from processing.phantom import simulate_exam
    from processing.phantom_vials import simulate_vials

    usual_slices = 12 if options.protocol == "mapss" else 1
    flavour = {name: getattr(options, name) for name in ("enhanced", "one_echo_time", "one_scan", "phase_images")}
    try:
        check_flavour(options.protocol, options.vendor, **flavour)
        usual: dict[str, Any] = {
            "n_slices": usual_slices if options.slices is None else options.slices,
            "snr": options.snr,
            "protocol": options.protocol,
            "visit": options.visit,
        }
        if options.phantom:
            template = load_templates()[0]
            exam = simulate_vials(template, options.seed, subject=options.subject or "QC-VIALS", **usual).exam
        else:
            exam = simulate_exam(options.seed, subject=options.subject or "PHANTOM-001", **usual)
    except ValueError as error:
        print(error, file=sys.stderr)
        return _USAGE
    paths = write_exam(exam, options.out, vendor=options.vendor, **flavour)
    if options.truth is not None:
        write_truth(exam, options.truth)
    what = "objects" if options.enhanced else "images"
    print(f"{len(paths)} {what} in {options.out}")
    return _OK
