"""What a report consists of: texts, tables and pictures, ready to be shown, and nothing about how.

A report is made once, as these records; :mod:`service.reports.html` and :mod:`service.reports.pdf` show the same ones.
All numbers are texts already, so that both show the same digits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

Colour = tuple[int, int, int]  # sRGB 0..255


class Tone(StrEnum):
    """How a notice is meant."""

    GOOD = "good"
    PLAIN = "plain"
    CAUTION = "caution"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Fact:
    """A name and its value."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts, ``in_row`` of them side by side, under a heading if there is one."""

    heading: str
    facts: tuple[Fact, ...]
    in_row: int = 2


@dataclass(frozen=True, slots=True)
class Notice:
    """What a reader must not miss."""

    tone: Tone
    title: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Flag:
    """Something to be checked: what it is, what was found, what helps, and its reason code."""

    title: str
    details: tuple[str, ...]
    advice: str
    code: str


@dataclass(frozen=True, slots=True)
class Flags:
    """All that is to be checked."""

    heading: str
    flags: tuple[Flag, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; neighbours of the same ``group`` stand under one heading. Texts stand at the left."""

    heading: str
    group: str = ""
    is_text: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its name, the colour that the pictures give it, one cell for each other column."""

    name: str
    cells: tuple[str, ...]
    colour: Colour | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table. The first column holds the names of the rows. A dense one is set in smaller letters."""

    heading: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""
    is_dense: bool = False

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) + 1 != len(self.columns):
                raise ValueError(f"{len(row.cells)} cells in the row {row.name!r} of {len(self.columns)} columns")

    @property
    def groups(self) -> tuple[tuple[str, int], ...]:
        """The groups in order, each with how many columns it spans; () where there are none."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if column.group and spans and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return tuple(spans) if any(name for name, _ in spans) else ()

    def starts_group(self, at: int) -> bool:
        """Whether a column is the first of a group that follows another one."""
        return at > 1 and self.columns[at].group not in ("", self.columns[at - 1].group)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture: ``png``, its size in pixels, what it shows for who cannot see it, and a line below it."""

    png: bytes
    width_px: int
    height_px: int
    description: str
    caption: str


@dataclass(frozen=True, slots=True)
class Text:
    """Paragraphs under a heading."""

    heading: str
    paragraphs: tuple[str, ...]


Block = Facts | Notice | Flags | Table | Picture | Text


@dataclass(frozen=True, slots=True)
class Page:
    """Blocks that begin on a new page."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A report. ``use`` stands on every page, ``footer`` below it."""

    title: str
    use: str
    footer: str
    pages: tuple[Page, ...]

    def texts(self) -> Iterator[str]:
        """Every text that a reader sees, in order; pictures by their captions."""
        for page in self.pages:
            yield page.title
            for block in page.blocks:
                yield from _texts(block)


def _texts(block: Block) -> Iterator[str]:
    match block:
        case Facts(heading, facts, _):
            yield heading
            for fact in facts:
                yield from (fact.name, fact.value)
        case Notice(_, title, lines):
            yield from (title, *lines)
        case Flags(heading, flags):
            yield heading
            for flag in flags:
                yield from (flag.title, *flag.details, flag.advice, flag.code)
        case Table(heading, columns, rows, note):
            yield heading
            yield from (column.heading for column in columns)
            for row in rows:
                yield from (row.name, *row.cells)
            yield note
        case Picture():
            yield block.caption
        case Text(heading, paragraphs):
            yield from (heading, *paragraphs)
