"""What a person can do about each reason code, in words for whoever looks after the scanner or the PACS."""

from collections.abc import Mapping

from processing.refusal import ReasonCode

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
