"""How long the node keeps what it has received and made."""

from pydantic import Field

from config.sections import Section


class Retention(Section):
    """Files of exams that are done and delivered everywhere, deleted after so many days; empty = kept for ever."""

    images_days: float | None = Field(
        None, ge=0, le=36_500, description="Received images: days after the exam's last event; empty = kept"
    )
    results_days: float | None = Field(
        None, ge=0, le=36_500, description="Result files (result.json stays): days after that; empty = kept"
    )
    every_s: float = Field(3600.0, ge=1, le=604_800, description="Seconds between two looks at what may be deleted")
