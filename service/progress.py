"""Progress of long work: a bar on a terminal, log lines elsewhere."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

#: Called with what is being done now and the finished share, 0..1.
Progress = Callable[[str, float], None]

_log = logging.getLogger(__name__)


def log_progress(step: str, share: float) -> None:
    """Report a step as a log line."""
    _log.info("progress share=%.2f step=%s", share, step)


@contextmanager
def show_progress(title: str) -> Iterator[Progress]:
    """Give a callable that reports progress on stderr: a bar on a terminal, one line a step elsewhere."""
    if not sys.stderr.isatty():

        def line(step: str, share: float) -> None:
            sys.stderr.write(f"{title}: {share:4.0%} {step}\n")
            sys.stderr.flush()

        yield line
        return
    with tqdm(
        total=100, desc=title, file=sys.stderr, bar_format="{desc:34.34s} {percentage:3.0f}%|{bar}| {elapsed}"
    ) as bar:

        def advance(step: str, share: float) -> None:
            bar.set_description_str(f"{title}: {step}")
            bar.update(max(0.0, 100 * share - bar.n))

        yield advance
