"""A report's document as JSON beside the report, so that it can be rendered again without an identity."""

import base64
import json
from dataclasses import asdict
from typing import Any

from service.reports.document import (
    Block,
    Column,
    Document,
    Fact,
    Facts,
    Flag,
    Flags,
    Notice,
    Page,
    Picture,
    Row,
    Table,
    Text,
    Tone,
)

FILE_NAME = "report.json"


def to_json(document: Document) -> str:
    """The document; pictures in base 64."""
    pages = [
        {"title": page.title, "blocks": [{"block": type(one).__name__, **asdict(one)} for one in page.blocks]}
        for page in document.pages
    ]
    content = {"title": document.title, "use": document.use, "footer": document.footer, "pages": pages}
    return json.dumps(content, ensure_ascii=False, default=_encoded) + "\n"


def from_json(text: str) -> Document:
    """The document that :func:`to_json` wrote.

    Raises:
        ValueError: it is none.
        KeyError: something is missing in it.
    """
    content = json.loads(text)
    pages = tuple(Page(page["title"], tuple(_block(dict(one)) for one in page["blocks"])) for page in content["pages"])
    return Document(content["title"], content["use"], content["footer"], pages)


def _encoded(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    raise TypeError(type(value).__name__)


def _block(values: dict[str, Any]) -> Block:
    match values.pop("block"):
        case "Facts":
            return Facts(values["heading"], tuple(Fact(**one) for one in values["facts"]), values["in_row"])
        case "Notice":
            return Notice(Tone(values["tone"]), values["title"], tuple(values["lines"]))
        case "Flags":
            flags = [Flag(**one | {"details": tuple(one["details"])}) for one in values["flags"]]
            return Flags(values["heading"], tuple(flags))
        case "Table":
            columns = tuple(Column(**one) for one in values["columns"])
            rows = tuple(_row(one) for one in values["rows"])
            return Table(values["heading"], columns, rows, values["note"])
        case "Picture":
            return Picture(**values | {"png": base64.b64decode(values["png"])})
        case "Text":
            return Text(values["heading"], tuple(values["paragraphs"]))
        case other:
            raise ValueError(f"no block of a report: {other}")


def _row(values: dict[str, Any]) -> Row:
    colour = values["colour"]
    return Row(values["name"], tuple(values["cells"]), None if colour is None else tuple(colour))
