"""The report of an exam that was not measured: why, and what would help. One page, without pictures."""

from collections.abc import Sequence

from processing.advice import SUMMARIES
from processing.refusal import Reason
from service.reports import words
from service.reports.document import Block, Document, Fact, Facts, Notice, Page, Text, Tone

TITLE = "Exam not measured"
_MOST_SERIES = 6
_KEPT = "They were kept as they came. Nothing was measured from them, and nothing was sent on."


def refusal_report(reasons: Sequence[Reason], series_uids: Sequence[str], software: str) -> Document:
    """The report of a refusal. Of the exam it names the series only, not whose they are.

    Args:
        reasons: why; at least one.
        series_uids: of the exam's images, as far as they could be read.
        software: version of discnode.
    """
    kinds = list(dict.fromkeys(SUMMARIES[reason.code] for reason in reasons))
    blocks: list[Block] = [
        Notice(Tone.STOP, "This exam was not measured", tuple(f"{kind}." for kind in kinds)),
        words.flags("Why, and what helps", reasons),
        Text("What became of the images", (_KEPT,)),
    ]
    if series_uids:
        blocks.append(_series(series_uids))
    return Document(TITLE, words.USE, f"discnode {software}", (Page(TITLE, tuple(blocks)),))


def _series(uids: Sequence[str]) -> Facts:
    shown = list(uids[:_MOST_SERIES])
    if len(uids) > _MOST_SERIES:
        shown.append(f"and {len(uids) - _MOST_SERIES} more, all in result.json")
    return Facts("Series", tuple(Fact(f"{at}", uid) for at, uid in enumerate(shown, start=1)), in_row=1)
