"""`discnode protocol`: what discnode makes of the images of an exam and why."""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config.protocol_cards import asked_elements, load_cards
from config.settings import Settings

if TYPE_CHECKING:
    from dicom_io.protocol_explanation import ExamExplanation, ImageExplanation, SeriesExplanation

_OK, _USAGE, _REFUSED = 0, 2, 3
_VALUES_NAMED = 3


def add_arguments(parser: argparse.ArgumentParser, load: Callable[[Path | None], Settings]) -> None:
    """The actions of the command. ``load`` reads a settings file."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    explain = actions.add_parser(
        "explain", help="for each image: its role, its time, where it was read, and what would be needed to accept it"
    )
    explain.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="files or folders of one exam")
    explain.add_argument("--images", action="store_true", help="one line for each image, not for each time")
    explain.add_argument("--json", action="store_true", help="everything, as JSON")
    explain.add_argument("--config", type=Path, help="settings file (YAML), for a site's own protocol cards")
    explain.set_defaults(command=lambda options: explain_exam_files(options, load(options.config)))

    draft = actions.add_parser("draft", help="a first protocol card for the images, to be reviewed")
    draft.add_argument("folder", type=Path, metavar="FOLDER", help="the images of one exam with the new protocol")
    draft.add_argument("--name", type=_card_name, help="of the card; default: from the series description")
    draft.add_argument(
        "--out", type=Path, metavar="CARD.yaml", help="file to write; of several scans, files numbered after it"
    )
    draft.add_argument("--config", type=Path, help="settings file (YAML), for the cards that are already there")
    draft.set_defaults(command=lambda options: draft_card_files(options, load(options.config)))

    listing = actions.add_parser("list", help="the protocol cards in use: what they match and which times they expect")
    listing.add_argument("--config", type=Path, help="settings file (YAML), for a site's own protocol cards")
    listing.set_defaults(command=lambda options: list_cards(load(options.config)))


def _card_name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]{3,58}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: 3 to 58 small letters, digits and dashes")
    return text


def list_cards(settings: Settings) -> int:
    """Print the cards in use; returns the exit status."""
    for card in load_cards(settings.protocols_dir):
        times = [f"{name} {', '.join(f'{time:g}' for time in times)} ms"
                 for name, times in (("T1rho", card.times.t1rho_ms), ("T2", card.times.t2_ms)) if times]  # fmt: skip
        lines = [
            f"{card.name}: {card.description}",
            f"    {card.role}; times by {card.times.rule}: {'; '.join(times)}" if times else f"    {card.role}",
            *(f"    {name} ~ {pattern}" for name, pattern in card.match if pattern is not None),
        ]
        if card.together_with:
            lines.append(f"    together with {', '.join(card.together_with)}")
        sys.stdout.write("\n".join(lines) + "\n")
    return _OK


def draft_card_files(options: argparse.Namespace, settings: Settings) -> int:
    """Write drafted cards to a file or to stdout, and say what is still to be filled in; returns the exit status."""
    from dicom_io.differing_elements import differing_elements
    from dicom_io.header_excerpt import struck_out_texts
    from dicom_io.protocol_draft import draft_cards
    from dicom_io.protocol_explanation import explain_exam
    from processing.refusal import UnsuitableInput
    from service.exam_files import read_exam_files

    if not options.folder.exists():
        sys.stderr.write(f"no such file or folder: {options.folder}\n")
        return _USAGE
    if options.out is not None and options.out.suffix not in (".yaml", ".yml"):
        sys.stderr.write(f"{options.out}: the name of a protocol card ends in .yaml\n")
        return _USAGE
    cards = load_cards(settings.protocols_dir)
    files = read_exam_files([options.folder], asked_elements(cards))
    of_series = {one.series_uid: one.path for one in files.facts}
    private = {text for path in of_series.values() for text in struck_out_texts(path)}
    try:
        drafts = draft_cards(
            files.facts, cards, name=options.name, private_texts=private, look_further=differing_elements
        )
    except UnsuitableInput as refusal:
        sys.stderr.write(f"{refusal}\n")
        return _REFUSED
    known = explain_exam(files.facts, cards).assembly
    if known.is_complete and known.relaxometry:
        names = " + ".join(known.protocols)
        sys.stderr.write(f"these images are measured already, by {names}: a card is needed for another protocol only\n")
    for number, draft in enumerate(drafts, start=1):
        if options.out is None:
            sys.stdout.write(draft.text if number == 1 else f"---\n{draft.text}")
            place = draft.name
        else:
            out = options.out if number == 1 else options.out.with_stem(f"{options.out.stem}-{number}")
            if out.exists():
                sys.stderr.write(f"{out}: is there already, and is not overwritten\n")
                return _USAGE
            out.write_text(draft.text, encoding="utf-8")
            place = str(out)
        todo = f"to be filled in: {', '.join(draft.open_keys)}" if draft.open_keys else "nothing left open"
        sys.stderr.write(f"{place}: a draft to be reviewed; {todo}\n")
    return _OK


def explain_exam_files(options: argparse.Namespace, settings: Settings) -> int:
    """Explain the files of one exam; returns 0 if it would be measured, 3 if not."""
    from dicom_io.header_excerpt import struck_out_texts
    from dicom_io.protocol_explanation import explain_exam
    from service.exam_files import read_exam_files

    absent = [str(path) for path in options.folders if not path.exists()]
    if absent:
        sys.stderr.write(f"no such file or folder: {', '.join(absent)}\n")
        return _USAGE
    cards = load_cards(settings.protocols_dir)
    files = read_exam_files(options.folders, asked_elements(cards))
    explanation = explain_exam(files.facts, cards, refusals=files.refusals, repeats=settings.completion.repeats)
    names = {one.facts.path for one in explanation.series}
    anonymous = {text: struck for path in sorted(names) for text, struck in struck_out_texts(path).items()}
    if options.json:
        text = json.dumps(as_json(explanation, options.folders), indent=2, ensure_ascii=False) + "\n"
    else:
        text = "\n".join(as_lines(explanation, options.folders, each_image=options.images)) + "\n"
    for text_of_site, struck in anonymous.items():  # also where a detail quotes the beginning of it
        text = text.replace(text_of_site, struck).replace(repr(text_of_site)[:70], repr(struck)[:70])
    sys.stdout.write(text)
    return _OK if explanation.is_accepted else _REFUSED


def as_json(explanation: "ExamExplanation", folders: Sequence[Path]) -> dict[str, Any]:
    """Everything in an explanation."""
    from dicom_io.protocol_needs import needs_of

    return {
        "accepted": explanation.is_accepted,
        "state": str(explanation.assembly.state),
        "measured_protocols": list(explanation.assembly.protocols) if explanation.is_accepted else [],
        "reasons": [{"code": str(one.code), "detail": one.detail} for one in explanation.reasons],
        "needed": list(needs_of(explanation)),
        "series": [_series_as_json(one, folders) for one in explanation.series],
    }


def _series_as_json(series: "SeriesExplanation", folders: Sequence[Path]) -> dict[str, Any]:
    facts = series.facts
    return {
        "series_uid": facts.series_uid,
        "series_number": facts.series_number,
        "series_description": facts.series_description,
        "manufacturer": facts.manufacturer,
        "manufacturer_model_name": facts.manufacturer_model_name,
        "card": series.card.name if series.card else None,
        "problem": series.problem,
        "cards": [
            {"card": one.card, "fits": one.fits, "failures": list(one.failures)} for one in series.verdicts
        ],
        "images": [
            {
                "file": _relative(one.facts.path, folders),
                "frame": one.facts.frame_number,
                "slice": one.slice_number,
                "role": str(one.use),
                "is_measured": one.is_measured,
                "time_ms": one.time_ms,
                "written_ms": one.written_ms,
                "source": one.source,
                "scaling": one.scaling,
                "why": one.why,
            }
            for one in series.images
        ],
    }  # fmt: skip


def as_lines(explanation: "ExamExplanation", folders: Sequence[Path], *, each_image: bool) -> list[str]:
    """An explanation for a terminal."""
    from dicom_io.protocol_needs import needs_of

    lines: list[str] = []
    for series in explanation.series:
        lines += [_series_title(series), *(f"    {line}" for line in _card_lines(series))]
        lines += [f"    {line}" for line in _table(series, folders, each_image=each_image)]
        lines.append("")
    if explanation.is_accepted:
        waits = (
            "" if explanation.assembly.state == "complete" else ", after silence: nothing says that no more will come"
        )
        lines.append(f"Verdict: would be measured as {' + '.join(explanation.assembly.protocols)}{waits}")
    else:
        lines.append(f"Verdict: would not be measured ({explanation.assembly.state})")
    lines += [f"    {one.code}: {one.detail}" for one in explanation.reasons]
    needs = needs_of(explanation)
    if needs:
        lines += ["Needed to measure it:", *(f"  - {need}" for need in needs)]
    return ["".join(sign if sign.isprintable() else "?" for sign in line) for line in lines]


def _series_title(series: "SeriesExplanation") -> str:
    facts = series.facts
    scanner = " ".join(filter(None, (facts.manufacturer, facts.manufacturer_model_name)))
    number = "without number" if facts.series_number is None else facts.series_number
    n_images = len(series.images)
    return f"Series {number} {facts.series_description!r}, {scanner or 'scanner unknown'}: {_count(n_images, 'image')}"


def _card_lines(series: "SeriesExplanation") -> list[str]:
    if series.card is not None:
        return [f"protocol card {series.card.name}"]
    fitting = [one.card for one in series.verdicts if one.fits]
    if len(fitting) > 1:
        return [f"several protocol cards fit: {', '.join(fitting)}"]
    if fitting:
        return [series.problem]
    return ["no protocol card fits:", *(f"  {one.card}: {'; '.join(one.failures)}" for one in series.verdicts)]


def _table(series: "SeriesExplanation", folders: Sequence[Path], *, each_image: bool) -> list[str]:
    if each_image:
        rows = [
            (
                _file(one, folders),
                _number(one.slice_number),
                _time([one]),
                str(one.use),
                one.source,
                one.scaling,
                one.why,
            )
            for one in series.images
        ]
        return _columns([("file", "slice", "time", "role", "read in", "scaling", ""), *rows])
    ordered = sorted(series.images, key=lambda one: (one.time_ms is None, one.time_ms or 0, *_alike(one)))
    rows = []
    for (_, use, source, why), images in groupby(ordered, key=_alike):
        alike = list(images)
        slices = _ranges({one.slice_number for one in alike if one.slice_number is not None})
        scalings = sorted({one.scaling for one in alike})
        scaling = scalings[0] if len(scalings) == 1 else f"each image its own ({scalings[0]}, {scalings[1]}, ...)"
        rows.append((str(len(alike)), slices, _time(alike), str(use), source, scaling, why))
    return _columns([("images", "slices", "time", "role", "read in", "scaling", ""), *rows])


def _alike(one: "ImageExplanation") -> tuple[float, str, str, str]:
    return -1.0 if one.time_ms is None else one.time_ms, str(one.use), one.source, one.why


def _time(images: Sequence["ImageExplanation"]) -> str:
    """The card's time, and where the headers tell another within the tolerance, theirs."""
    nominal = images[0].time_ms
    if nominal is None:
        return ""
    written = sorted({f"{one.written_ms:g}" for one in images if one.written_ms is not None})
    return f"{nominal:g} ms" if written == [f"{nominal:g}"] else f"{nominal:g} ms (written {', '.join(written[:3])})"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text as aligned columns, the head first; columns without any content are left out."""
    used = [index for index in range(len(rows[0])) if any(row[index] for row in rows[1:])]
    widths = {index: max(len(row[index]) for row in rows) for index in used}
    return ["  ".join(row[index].ljust(widths[index]) for index in used).rstrip() for row in rows]


def _ranges(numbers: Iterable[int]) -> str:
    """Such as "1-5, 7, 9-12"."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def _file(one: "ImageExplanation", folders: Sequence[Path]) -> str:
    frame = "" if one.facts.frame_number is None else f" frame {one.facts.frame_number}"
    return _relative(one.facts.path, folders) + frame


def _relative(path: Path, folders: Sequence[Path]) -> str:
    for folder in folders:
        if path != folder and path.is_relative_to(folder):
            return str(path.relative_to(folder))
    return path.name


def _number(number: int | None) -> str:
    return "" if number is None else str(number)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
