"""The network: S1 of the paper, and its comparison with U-Nets (S7-S9), both from the model card."""

import re
from collections.abc import Iterator
from pathlib import Path

import models
from models.registry import ModelError, load_model
from service.cohort.reproduction.item_files import ItemFolder, ItemUnavailable
from service.cohort.reproduction.item_sources import ItemSources
from service.reports.document import Block, Column, Row, Table, Text

_CARD = Path(models.__file__).parent / "MODEL_CARD.md"
_RULE = re.compile(r"\|[\s:|-]+\|")
#: What must be run to fill S7-S9 anew.
_HOW = (
    "It is not part of a run without training. To measure it again, in a source checkout with annotated data:"
    " python -m tests.benchmarks.networks --data DATA --profile gpu."
)


def table_s1(sources: ItemSources, files: ItemFolder) -> Iterator[Block]:
    """The network that was used, from its registry, and how it was trained, from its card."""
    wanted = sources.settings.segmentation
    try:
        record = load_model(wanted.model, wanted.weights_dir)
    except ModelError as error:
        raise ItemUnavailable(str(error)) from error
    facts = {
        "network": f"{record.name} {record.version}: {record.architecture}, width {record.width}",
        "members": f"{len(record.members)}, logits averaged",
        "threshold": f"{record.threshold if wanted.threshold is None else wanted.threshold:g}",
        "pixel": f"{record.spacing_mm:g} mm",
        "classes": ", ".join(record.classes),
        "training data": record.training_data,
        "licence": record.licence,
        "SHA-256": record.sha256,
    }
    rows = tuple(Row(name, (value,)) for name, value in facts.items())
    files.numbers("tableS1", [{"property": name, "value": value} for name, value in facts.items()])
    yield files.table("tableS1", Table("S1: the network", (Column("property"), Column("value", is_text=True)), rows))
    if wanted.weights_dir is not None:
        yield Text("Training", ("The network is a site's own: how it was trained is not in the packaged model card.",))
        return
    card = read_card()
    training = card_table(card, "member")
    if training is None:
        yield Text("Training", ("The model card has no table of its training.",))
        return
    files.numbers("tableS1_training", [dict(zip(training[0], row, strict=True)) for row in training[1]])
    note = f"{_paragraph(card, 'Profile')} {_paragraph(card, 'Loss:')}".strip()
    yield files.table("tableS1_training", _as_table("S1: training of the members", *training, note=note))


def table_s7_s9(sources: ItemSources, files: ItemFolder) -> Iterator[Block]:
    """CFCM and U-Nets of 16, 32 and 64 filters, as the model card records the measurement."""
    found = card_table(read_card(), "network")
    if found is None:
        raise ItemUnavailable(f"the weights of U-Nets are not shipped and the model card has no comparison. {_HOW}")
    heads, rows = found
    files.numbers("tableS7-S9", [dict(zip(heads, row, strict=True)) for row in rows])
    note = (
        "Measured once, when the network was made, on annotated images of real patients and on simulated ones; taken"
        f" from the model card, not from this reproduction. {_HOW}"
    )
    yield files.table("tableS7-S9", _as_table("S7–S9: U-Nets beside the CFCM", heads, rows, note=note))
    what = _paragraph(read_card(), "CFCM and U-Net trained alike")
    said = _paragraph(read_card(), "On real patients the four")
    yield Text("", tuple(one for one in (what, said) if one))


def read_card() -> str:
    """The model card that comes with the packaged network (Markdown)."""
    return _CARD.read_text(encoding="utf-8")


def card_table(card: str, first: str) -> tuple[list[str], list[list[str]]] | None:
    """Heads and rows of the card's table whose first column is called ``first``; None where there is none."""
    lines = card.splitlines()
    for at, line in enumerate(lines[:-1]):
        heads = _cells(line)
        if line.startswith("|") and heads[0] == first and _RULE.fullmatch(lines[at + 1].strip()):
            rows = []
            for below in lines[at + 2 :]:
                if not below.startswith("|"):
                    break
                rows.append(_cells(below))
            return heads, rows
    return None


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _paragraph(card: str, begins: str) -> str:
    """The paragraph that begins so, in one line without marks; empty where there is none."""
    found = next((one for one in re.split(r"\n\s*\n", card) if one.startswith(begins)), "")
    return " ".join(found.replace("`", "").replace("*", "").split())


def _as_table(heading: str, heads: list[str], rows: list[list[str]], *, note: str) -> Table:
    columns = tuple(Column(head) for head in heads)
    return Table(heading, columns, tuple(Row(row[0], tuple(row[1:])) for row in rows), note)
