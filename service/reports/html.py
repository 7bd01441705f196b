"""A report as one HTML page that needs no other file and runs no script."""

import base64
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from service.reports.document import Document, Facts, Flags, Notice, Picture, Table, Text

_KINDS = {Facts: "facts", Notice: "notice", Flags: "flags", Table: "table", Picture: "picture", Text: "text"}


def html_page(document: Document) -> str:
    """The page. Every text is escaped; tables have row and column headers, pictures a description."""
    return _template().render(document=document)


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("service.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["kind"] = lambda block: _KINDS[type(block)]
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode("ascii")
    environment.filters["css"] = lambda colour: "rgb({}, {}, {})".format(*colour)
    return environment.get_template("report.html")
