"""A report as a PDF file: A4, fonts embedded, the same bytes for the same report."""

import importlib.util
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from reportlab import rl_config
from reportlab.lib import colors
from reportlab.lib.enums import TA_CENTER, TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BaseDocTemplate,
    Flowable,
    Frame,
    Image,
    KeepTogether,
    NextPageTemplate,
    PageBreak,
    PageTemplate,
    Paragraph,
    Spacer,
)
from reportlab.platypus import Table as Grid

from service.reports.document import Block, Colour, Document, Facts, Flags, Notice, Picture, Table, Text, Tone

_REGULAR, _BOLD = "discnode-regular", "discnode-bold"
_FILES = {_REGULAR: "DejaVuSans.ttf", _BOLD: "DejaVuSans-Bold.ttf"}
_INK, _FAINT, _LINE, _USE = (colors.HexColor(one) for one in ("#1b2530", "#5a6670", "#d5dce2", "#a3201a"))
_TONES = {
    Tone.GOOD: (colors.HexColor("#1f8a4c"), colors.HexColor("#eef8f1")),
    Tone.PLAIN: (colors.HexColor("#4a6a8a"), colors.HexColor("#eef3f8")),
    Tone.CAUTION: (colors.HexColor("#d18b00"), colors.HexColor("#fff7e6")),
    Tone.STOP: (colors.HexColor("#b3261e"), colors.HexColor("#fdefee")),
}
_MARGIN, _HEAD, _FOOT = 15 * mm, 20 * mm, 15 * mm
_WIDTH = A4[0] - 2 * _MARGIN
_HIGHEST_PICTURE = A4[1] - _HEAD - _FOOT - 24 * mm  # its caption stands on the same sheet
_PICTURE_SCALES = (1.0, 0.92, 0.85, 0.7, 0.55)
_MOST_SPARE = 24 * mm  # in a column; a table of few columns is not spread over the page


def pdf_file(document: Document) -> bytes:
    """The file. Its dates are fixed, so that the same report gives the same bytes.

    What does not fit on one sheet goes on on the next one; only the first page stays on one sheet, with smaller
    pictures where it must.
    """
    _prepare()
    for scale in _PICTURE_SCALES:
        content, n_first = _built(document, scale)
        if n_first == 1:
            break
    return content


def _built(document: Document, picture_scale: float) -> tuple[bytes, int]:
    """The file, and how many sheets its first page took."""
    stream = BytesIO()
    template = BaseDocTemplate(
        stream,
        pagesize=A4,
        title=document.title,
        author="discnode",
        subject=document.use,
        creator="discnode",
        lang="en",
        invariant=1,
        pageCompression=1,
    )
    frame = Frame(_MARGIN, _FOOT, _WIDTH, A4[1] - _HEAD - _FOOT, 0, 0, 0, 0, id="body")
    sheets: list[str] = []
    template.addPageTemplates(
        [
            PageTemplate(f"{number}", [frame], onPage=_decorator(document, page.title, sheets))
            for number, page in enumerate(document.pages)
        ]
    )
    template.build(list(_flowables(document, picture_scale)), canvasmaker=_NumberedCanvas)
    return stream.getvalue(), sheets.count(document.pages[0].title)


@cache
def _prepare() -> None:
    """Fonts: DejaVu Sans, which comes with matplotlib, and has ρ, ± and the letters of most of Europe."""
    rl_config.useA85 = 0  # streams as bytes; as letters they take a quarter more, and seconds
    spec = importlib.util.find_spec("matplotlib")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
    for name, file in _FILES.items():
        pdfmetrics.registerFont(TTFont(name, str(folder / file)))
    pdfmetrics.registerFontFamily(_REGULAR, normal=_REGULAR, bold=_BOLD, italic=_REGULAR, boldItalic=_BOLD)


def _decorator(document: Document, title: str, sheets: list[str]) -> Any:
    """Draws what stands on every sheet: title and use above, the document's footer and its use below. Counts them."""

    def draw(canvas: Canvas, _: BaseDocTemplate) -> None:
        top, bottom, right = A4[1] - 14 * mm, 9 * mm, A4[0] - _MARGIN
        sheets.append(title)
        canvas.saveState()
        canvas.setFillColor(_INK)
        room = right - _MARGIN - canvas.stringWidth(document.use, _BOLD, 7.5) - 4 * mm
        canvas.setFont(_BOLD, min(13, 13 * room / canvas.stringWidth(title, _BOLD, 13)))
        canvas.drawString(_MARGIN, top, title)
        canvas.setFillColor(_USE)
        canvas.setFont(_BOLD, 7.5)
        canvas.drawRightString(right, top, document.use)
        canvas.setStrokeColor(_INK)
        canvas.setLineWidth(1)
        canvas.line(_MARGIN, top - 2.5 * mm, right, top - 2.5 * mm)
        canvas.setFillColor(_FAINT)
        canvas.setFont(_REGULAR, 6.5)
        canvas.drawString(_MARGIN, bottom, document.footer)
        beside = _MARGIN + canvas.stringWidth(document.footer, _REGULAR, 6.5) + 4 * mm
        half = canvas.stringWidth(document.use, _REGULAR, 6.5) / 2
        canvas.drawCentredString(max(A4[0] / 2, beside + half), bottom, document.use)
        canvas.restoreState()

    return draw


class _NumberedCanvas(Canvas):  # type: ignore[misc]
    """Writes ``page 1 of 2`` on each page, once it is known how many there are."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._finished: list[dict[str, Any]] = []

    def showPage(self) -> None:  # noqa: N802 - reportlab's name
        self._finished.append(dict(self.__dict__))
        self._startPage()

    def save(self) -> None:
        for number, page in enumerate(self._finished, start=1):
            self.__dict__.update(page)
            self.setFillColor(_FAINT)
            self.setFont(_REGULAR, 6.5)
            self.drawRightString(A4[0] - _MARGIN, 9 * mm, f"page {number} of {len(self._finished)}")
            super().showPage()
        super().save()


def _flowables(document: Document, picture_scale: float) -> Iterator[Flowable]:
    for number, page in enumerate(document.pages):
        yield NextPageTemplate(f"{number}")
        if number:
            yield PageBreak()
        for block in page.blocks:
            yield from _block(block, 1.0 if number else picture_scale)


def _block(block: Block, picture_scale: float) -> Iterator[Flowable]:
    match block:
        case Facts():
            yield from _facts(block)
        case Notice():
            yield from _notice(block)
        case Flags():
            yield from _flags(block)
        case Table():
            yield KeepTogether([*_heading(block.heading), _grid(block), *_note(block.note), Spacer(0, 3 * mm)])
        case Picture():
            width = min(_WIDTH * picture_scale, _HIGHEST_PICTURE * block.width_px / block.height_px)
            image = Image(BytesIO(block.png), width, width * block.height_px / block.width_px, hAlign="LEFT")
            yield KeepTogether([image, *_note(block.caption), Spacer(0, 3 * mm)])
        case Text(heading, paragraphs):
            yield from _heading(heading)
            yield from (_text(paragraph, _style(7.5)) for paragraph in paragraphs)
            yield Spacer(0, 1.5 * mm)


def _style(size: float, *, bold: bool = False, colour: Any = _INK, alignment: int = 0) -> ParagraphStyle:
    return ParagraphStyle(
        f"{size}{bold}{colour}{alignment}",
        fontName=_BOLD if bold else _REGULAR,
        fontSize=size,
        leading=size * 1.32,
        textColor=colour,
        alignment=alignment,
        splitLongWords=1,
    )


def _text(text: str, style: ParagraphStyle) -> Paragraph:
    return Paragraph(escape(in_letters(text)), style)


def in_letters(text: str) -> str:
    """A text of letters that the fonts have; others by their numbers, so that two names stay two: ``<U+6F22>``."""
    _prepare()
    known = pdfmetrics.getFont(_REGULAR).face.charToGlyph
    return "".join(one if ord(one) in known or one.isspace() else f"<U+{ord(one):04X}>" for one in text)


def _heading(heading: str) -> list[Flowable]:
    return [_text(heading, _style(9, bold=True)), Spacer(0, 1 * mm)] if heading else []


def _note(note: str) -> list[Flowable]:
    return [Spacer(0, 0.8 * mm), _text(note, _style(6.5, colour=_FAINT))] if note else []


def _facts(block: Facts) -> Iterator[Flowable]:
    name, value = _style(7.5, colour=_FAINT), _style(7.5)
    cells = [cell for one in block.facts for cell in (_text(one.name, name), _text(one.value, value))]
    in_row = 2 * block.in_row
    cells += [""] * (-len(cells) % in_row)
    width = (18 if block.in_row > 1 else 24) * mm
    grid = Grid(
        [cells[at : at + in_row] for at in range(0, len(cells), in_row)],
        [width, _WIDTH / block.in_row - width] * block.in_row,
        hAlign="LEFT",
    )
    grid.setStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), *_padding(0, 0.5 * mm), ("RIGHTPADDING", (1, 0), (-1, -1), 6)])
    yield KeepTogether([*_heading(block.heading), grid, Spacer(0, 2 * mm)])


def _padding(across: float, along: float) -> list[tuple[Any, ...]]:
    every = ((0, 0), (-1, -1))
    sides = {"LEFTPADDING": across, "RIGHTPADDING": across, "TOPPADDING": along, "BOTTOMPADDING": along}
    return [(name, *every, width) for name, width in sides.items()]


def _notice(block: Notice) -> Iterator[Flowable]:
    dark, light = _TONES[block.tone]
    texts = [_text(block.title, _style(9, bold=True)), *(_text(line, _style(7.5)) for line in block.lines)]
    grid = Grid([[texts]], [_WIDTH])
    grid.setStyle(
        [
            ("BACKGROUND", (0, 0), (-1, -1), light),
            ("LINEBEFORE", (0, 0), (0, -1), 3, dark),
            *_padding(3 * mm, 1.4 * mm),
        ]
    )
    yield grid
    yield Spacer(0, 3 * mm)


def _flags(block: Flags) -> Iterator[Flowable]:
    yield from _heading(block.heading)
    for flag in block.flags:
        code = f'<font name="{_REGULAR}" size="6" color="#5a6670">{escape(flag.code)}</font>'
        texts = [
            Paragraph(f"{escape(flag.title)}  {code}", _style(8, bold=True)),
            *(_text(detail, _style(7.5)) for detail in flag.details),
        ]
        if flag.advice:
            texts.append(_text(flag.advice, _style(6.5, colour=_FAINT)))
        yield KeepTogether([*texts, Spacer(0, 2 * mm)])
    yield Spacer(0, 1.5 * mm)


def _grid(block: Table) -> Grid:
    """The table: headings above a line, names at the left with a chip of their colour, numbers at the right."""
    size = _size(block)
    sides = [0 if at == 0 or one.is_text else TA_RIGHT for at, one in enumerate(block.columns)]
    head = [
        _text(one.heading, _style(6.5, colour=_FAINT, alignment=side))
        for one, side in zip(block.columns, sides, strict=True)
    ]
    body = [
        [
            _named(row.name, row.colour, size),
            *(_text(cell, _style(size, alignment=side)) for cell, side in zip(row.cells, sides[1:], strict=True)),
        ]
        for row in block.rows
    ]
    groups = block.groups
    style: list[tuple[Any, ...]] = [
        ("VALIGN", (0, 0), (-1, -1), "BOTTOM"),
        *_padding(2, 0.7 if block.is_dense else 1.3),
        ("LEFTPADDING", (0, 0), (0, -1), 0),
        *(("LEFTPADDING", (at, 0), (at, -1), 6) for at, one in enumerate(block.columns) if at and one.is_text),
        ("RIGHTPADDING", (-1, 0), (-1, -1), 0),
    ]
    rows = [head, *body]
    if groups:
        rows.insert(0, _group_cells(block, style))
    n_head = 2 if groups else 1
    style.append(("LINEBELOW", (0, n_head - 1), (-1, n_head - 1), 0.8, _FAINT))
    style.append(("LINEBELOW", (0, n_head), (-1, -1), 0.4, _LINE))
    grid = Grid(rows, _widths(block), hAlign="LEFT", repeatRows=n_head)
    grid.setStyle(style)
    return grid


def _group_cells(block: Table, style: list[tuple[Any, ...]]) -> list[Any]:
    """The row of the groups' headings; adds their spans to ``style``."""
    cells: list[Any] = []
    for name, span in block.groups:
        first = len(cells)
        cells += [_text(name, _style(7, bold=True, alignment=TA_CENTER if span > 1 else TA_RIGHT)), *[""] * (span - 1)]
        if name and span > 1:
            style.append(("SPAN", (first, 0), (first + span - 1, 0)))
            style.append(("LINEBELOW", (first, 0), (first + span - 1, 0), 0.4, _FAINT))
    return cells


def _size(block: Table) -> float:
    return 6.6 if block.is_dense else 7.5


def _named(name: str, colour: Colour | None, size: float) -> Paragraph:
    chip = ""
    if colour is not None:
        chip = f'<font color="#{colour[0]:02x}{colour[1]:02x}{colour[2]:02x}">■</font> '
    return Paragraph(f"{chip}{escape(name)}", _style(size, bold=True))


def _widths(block: Table) -> list[float]:
    """As wide as the longest text of each column asks for, together the width of the page if there are many.

    Where that is more than the page has, long texts are broken: between words while there is room for the longest word.
    """
    needs, least, size = [], [], _size(block)
    for at, column in enumerate(block.columns):
        cells = [row.name if at == 0 else row.cells[at - 1] for row in block.rows]
        font = _BOLD if at == 0 else _REGULAR
        room = (14 if block.starts_group(at) or column.is_text else 6) + (11 if at == 0 else 0)
        heading = max(pdfmetrics.stringWidth(word, _REGULAR, 6.5) for word in column.heading.split())
        longest = max((pdfmetrics.stringWidth(cell, font, size) for cell in cells), default=0)
        word = max((pdfmetrics.stringWidth(one, font, size) for cell in cells for one in cell.split()), default=0)
        needs.append(max(longest, heading) + room)
        least.append(max(word, heading) + room)
    if sum(needs) > _WIDTH:
        spare = _WIDTH - sum(least)
        if spare < 0:
            return [one * _WIDTH / sum(least) for one in least]
        share = spare / (sum(needs) - sum(least))
        return [low + share * (need - low) for need, low in zip(needs, least, strict=True)]
    spare = min((_WIDTH - sum(needs)) / max(1, len(needs) - 1), _MOST_SPARE)
    return [needs[0], *(need + spare for need in needs[1:])]
