"""Whose corrected segmentations are measured without asking."""

from pydantic import Field

from config.sections import AETitle, Section


class CorrectionSettings(Section):
    """Segmentations that are sent back."""

    accepted_from: tuple[AETitle, ...] = Field(
        (),
        description="Calling AE titles whose segmentations are measured; those of others wait for a person; empty ="
        " everyone who may send",
    )

    def accepts(self, calling_ae: str) -> bool:
        """Whether a segmentation that came from there is measured without a person's word."""
        return not self.accepted_from or calling_ae in self.accepted_from
