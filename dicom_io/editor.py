"""Says in an output that a person has drawn or changed the discs: who, with which program, and how much."""

from pydicom.dataset import Dataset

from processing.results import Correction


def name_editor(dataset: Dataset, correction: Correction) -> None:
    """Add the person's program to the contributing equipment (PS3.3 C.12.1.1.5), and name the person.

    Changes ``dataset``. In its character set; what that cannot hold is replaced by question marks.
    """
    origin = correction.origin
    editor = _in_character_set(origin.editor, dataset)
    if editor and "ContentLabel" in dataset:
        dataset.ContentCreatorName = editor
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = "109103", "DCM", "Modifying Equipment"
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [purpose]
    item.Manufacturer = _in_character_set(origin.tool, dataset)[:64] or "unknown"
    if editor:
        item.OperatorsName = editor
    item.ContributionDescription = _in_character_set(describe_correction(correction), dataset)[:1024]
    dataset.ContributingEquipmentSequence = [*dataset.get("ContributingEquipmentSequence", ()), item]


def describe_correction(correction: Correction) -> str:
    """What was changed, in words; no person is named."""
    name = correction.origin.sop_instance_uid or "a volume file"
    dice = ", ".join(f"{level.name} {value:.3f}" for level, value in correction.automatic_dice.items())
    parts = [f"Discs drawn or changed by a person, as in {name}"]
    if dice:
        parts.append(f"Dice with the automatic discs: {dice}")
    if correction.removed:
        parts.append(f"removed: {', '.join(level.name for level in correction.removed)}")
    if correction.automatic_refusal is not None:
        parts.append(f"no automatic discs: {correction.automatic_refusal.code}")
    return "; ".join(parts)


def _in_character_set(text: str, dataset: Dataset) -> str:
    names = dataset.get("SpecificCharacterSet") or ""
    codec = _CODECS.get(str(names), "ascii") if isinstance(names, str) else "ascii"
    return text.encode(codec, "replace").decode(codec).strip()


_CODECS = {"ISO_IR 100": "latin-1", "ISO_IR 192": "utf-8"}
