"""What a person can do about each reason code, in words for whoever looks after the scanner or the PACS."""

from collections.abc import Mapping

from processing.refusal import ReasonCode

#: For a segmentation that came back; codes that are not here mean what they mean for images (ADVICE).
SEGMENTATION_ADVICE: Mapping[ReasonCode, str] = {
    ReasonCode.SERIES_INCOMPLETE: "Send the images of the study; the segmentation is then judged again by itself.",
    ReasonCode.PROTOCOL_UNKNOWN: "The images of its study cannot be measured, so there is nothing to correct. When they"
    " can be, the segmentation is judged again by itself.",
    ReasonCode.IDENTITY_CONFLICT: "It was drawn on images of another study or patient. Open the exam that it is meant"
    " for in the viewer, draw there, and send that; discard this one.",
    ReasonCode.GEOMETRY_INCONSISTENT: "It was drawn on other images, or resampled when it was saved. In 3D Slicer set"
    " the segmentation's source geometry to the exam's images before you export it; then discard this one.",
    ReasonCode.LEVELS_AMBIGUOUS: "Give each segment the code of its disc, or a label such as 'L4/L5', and only one of"
    " the two if they differ; delete segments that are no disc; save it as a new object and send that.",
    ReasonCode.SEGMENTATION_UNCERTAIN: "It is empty. To say that no disc can be measured, discard the exam instead.",
    ReasonCode.UNSUPPORTED_OBJECT: "Save it as a binary segmentation or a label map, each voxel in one segment only.",
    ReasonCode.REVIEW_REQUIRED: "It fits its exam. If its discs are to be measured, release it; else discard it.",
    ReasonCode.INSTANCE_CONFLICT: "It has the UID of another segmentation. Save it as a new object (a viewer's 'save as"
    " new'), send that, and discard this one.",
}

#: One sentence or two for each code; the detail of a reason says what was found, this says what helps.
ADVICE: Mapping[ReasonCode, str] = {
    ReasonCode.ECHO_UNRESOLVED: "Nothing in the header tells with certainty which image has which time. If you know how"
    " the scanner writes it, describe it in a protocol card ('discnode protocol draft'); if the images differ only in"
    " the order of acquisition, a card with rule acquisition_order says which order.",
    ReasonCode.SERIES_INCOMPLETE: "Send the missing images; the exam is then judged again by itself. Images that came"
    " before need not be sent again.",
    ReasonCode.GEOMETRY_INCONSISTENT: "The images do not form one sagittal volume. Check that one whole scan was sent,"
    " not parts of several; an irregular scan must be repeated or left out (discard with a reason).",
    ReasonCode.SCALING_UNKNOWN: "The signals of the images cannot be compared as they were sent. Send them from the"
    " scanner with the private elements kept (Philips: the scale slope (2005,xx0E)), or describe in a protocol card how"
    " the stored values become signal.",
    ReasonCode.UNSUPPORTED_OBJECT: "This object is no acquired MR image that discnode reads. If it was sent by mistake,"
    " discard it; else send the original images.",
    ReasonCode.UNREADABLE: "The file is broken or was cut short on its way. Send the object again from its source, then"
    " discard this one.",
    ReasonCode.IDENTITY_CONFLICT: "Images of different patients or studies are mixed. Find out which do not belong and"
    " set their series aside ('discnode quarantine discard ID --series UID --reason ...'); the rest is then judged"
    " again.",
    ReasonCode.INSTANCE_CONFLICT: "Two different contents came under one UID. Find out which is right: release it and"
    " it is used in place of the other, or discard the wrong one.",
    ReasonCode.PROTOCOL_UNKNOWN: "No protocol card, or more than one, fits the series. 'discnode protocol explain'"
    " says which pattern failed on which value; 'discnode protocol draft' writes a card to be reviewed. Then release"
    " the exam.",
    ReasonCode.PROTOCOL_DEVIATION: "The exam is not what its protocol card describes, or holds more than one scan that"
    " could be measured. Set the scan that is not wanted aside ('discnode quarantine discard ID --series UID'); of"
    " repeats, the setting completion.repeats can decide. For another protocol, write a card.",
    ReasonCode.SEGMENTATION_UNCERTAIN: "The discs were not found with certainty. Look at the pictures of the result;"
    " the images may be of another region, or too noisy.",
    ReasonCode.LEVELS_AMBIGUOUS: "The names of the discs are not certain. Look at the pictures and name the lowest"
    " disc: 'discnode jobs retry ID --lowest-disc L5S1'.",
    ReasonCode.REGISTRATION_POOR: "A disc could not be brought onto its atlas disc well enough. Look at the pictures;"
    " the disc's own mean does not depend on it, its subregions do.",
    ReasonCode.DECAY_IMPLAUSIBLE: "The signal does not fall with time as a relaxation must. Check the times in the"
    " protocol card ('discnode protocol explain'), and the images for artefacts.",
    ReasonCode.MOTION: "The subject moved between the images of one decay. Repeat the scan if it matters.",
    ReasonCode.NOT_COMPARABLE: "The exams were not acquired alike and must not be compared.",
    ReasonCode.REVIEW_REQUIRED: "A person must look at the result before it is used.",
    ReasonCode.INTERNAL: "A fault of discnode, or of its disk. The node's log tells more; release it to try again.",
}

#: What each code means, in a few words, as a heading over the detail.
SUMMARIES: Mapping[ReasonCode, str] = {
    ReasonCode.ECHO_UNRESOLVED: "The times of the images cannot be told",
    ReasonCode.SERIES_INCOMPLETE: "Images are missing",
    ReasonCode.GEOMETRY_INCONSISTENT: "The images do not form one volume",
    ReasonCode.SCALING_UNKNOWN: "The signals of the images cannot be compared",
    ReasonCode.UNSUPPORTED_OBJECT: "Not an acquired MR image that can be read",
    ReasonCode.UNREADABLE: "A file cannot be read",
    ReasonCode.IDENTITY_CONFLICT: "Images of different patients or studies are mixed",
    ReasonCode.INSTANCE_CONFLICT: "Two contents came under one UID",
    ReasonCode.PROTOCOL_UNKNOWN: "The protocol of the scan is not known",
    ReasonCode.PROTOCOL_DEVIATION: "The exam is not what its protocol describes",
    ReasonCode.SEGMENTATION_UNCERTAIN: "Discs are missing or doubtful",
    ReasonCode.LEVELS_AMBIGUOUS: "Which disc is which is not certain",
    ReasonCode.REGISTRATION_POOR: "A disc was not brought onto the atlas well",
    ReasonCode.DECAY_IMPLAUSIBLE: "The signal does not fall as tissue does",
    ReasonCode.MOTION: "Motion between the images",
    ReasonCode.NOT_COMPARABLE: "The exams cannot be compared",
    ReasonCode.REVIEW_REQUIRED: "A measurement is doubtful",
    ReasonCode.INTERNAL: "A fault of discnode",
}
