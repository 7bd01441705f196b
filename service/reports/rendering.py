"""Both forms of a report, from one document."""

from dataclasses import dataclass

from service.refusal_file import REPORT_FILES
from service.reports.document import Document
from service.reports.html import html_page
from service.reports.pdf import pdf_file


@dataclass(frozen=True, slots=True)
class RenderedReport:
    """One report in both forms."""

    html: str
    pdf: bytes

    def files(self) -> dict[str, bytes]:
        """The contents of :data:`service.refusal_file.REPORT_FILES`."""
        return dict(zip(REPORT_FILES, (self.html.encode("utf-8"), self.pdf), strict=True))


def render(document: Document) -> RenderedReport:
    """Both forms. The same document gives the same bytes."""
    return RenderedReport(html_page(document), pdf_file(document))
