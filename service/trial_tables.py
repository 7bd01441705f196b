"""The tables of trials: subjects, visits, what was decided about them, and what was reported."""

from sqlalchemy import JSON, Boolean, Column, Date, ForeignKey, Index, Integer, String, Table, Text, UniqueConstraint

from service.tables import UtcDateTime, metadata

#: A trial that the node follows. ``plan``: the text of its file; ``freeze``: what measures it, once that is frozen.
trial = Table(
    "trial",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("protocol_id", String(64), nullable=False, unique=True),
    Column("plan", Text, nullable=False),
    Column("plan_sha256", String(64), nullable=False),
    Column("registered_at", UtcDateTime, nullable=False),
    Column("freeze", JSON),  # software, weights, atlas, settings digest, plan hash; empty: not frozen
    Column("frozen_at", UtcDateTime),
    Column("frozen_by", String(64)),
    Column("unblinded_at", UtcDateTime),
    Column("unblinded_by", String(64)),
    Column(
        "file", String(255), nullable=False, default=""
    ),  # of the plan: relative paths in it are taken from its folder
    Column("deviation", Text),  # what is wrong with the plan's file since it was frozen; empty: nothing
    Column("deviates_since", UtcDateTime),
)

#: A subject. ``patient_digest``: of the PatientID, under the node's own key; never the identity itself.
subject = Table(
    "trial_subject",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("trial_id", ForeignKey("trial.id"), nullable=False),
    Column("subject_id", String(64), nullable=False),
    Column("site_id", String(64), nullable=False),
    Column("state", String(16), nullable=False),  # service.states.SubjectState
    Column("patient_digest", String(64)),
    Column("birth_year", Integer),
    Column("sex", String(1)),
    Column("day_zero", Date),
    Column("lowest_disc", String(8)),  # the lowest disc in view of the baseline, confirmed by a person
    Column("levels_confirmed_by", String(64)),
    Column("levels_confirmed_at", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Column("is_listed", Boolean, nullable=False, default=False),  # by a person, in the subjects' table
    Column("imported", JSON),  # what that table says of the identity: the images must agree
    Column("levels", JSON),  # discs of the exam that a person looked at when confirming, from below
    Column("withdrawn_on", Date),
    Column("look_on", Date),  # the day from which a visit of it is missed
    Column("priors_asked_at", UtcDateTime),
    UniqueConstraint("trial_id", "subject_id"),
    Index("trial_subject_by_patient", "trial_id", "patient_digest"),
    Index("trial_subject_by_look", "state", "look_on"),
)

#: What an exam's headers say of trials, and what people said of it. ``trial_id``: of the trial that claims it.
#: ``subject_id``: whom it was taken for; without one, ``code`` and ``detail`` tell why.
trial_exam = Table(
    "trial_exam",
    metadata,
    Column("exam_id", ForeignKey("exam.id"), primary_key=True, autoincrement=False),
    Column("trial_id", ForeignKey("trial.id")),
    Column("subject_id", ForeignKey("trial_subject.id"), index=True),
    Column("protocol_id", String(64), nullable=False),
    Column("site_label", String(64), nullable=False),
    Column("subject_label", String(64), nullable=False),
    Column("time_point", String(64), nullable=False),
    Column("patient_digest", String(64)),
    Column("birth_year", Integer),
    Column("sex", String(1), nullable=False),
    Column("study_date", Date),
    Column("acquired_at", String(40)),  # ISO 8601, with its offset from UTC where the header tells one
    Column("has_time", Boolean, nullable=False),
    Column("disagreement", Text, nullable=False),  # in what its images name different subjects; "" where they agree
    Column("is_phantom", Boolean, nullable=False),
    Column("claimed_by", String(16)),  # attributes, mapping, date, person: what says whose it is
    Column("visit_label", String(64)),  # the visit that it says; empty: only the date can tell
    Column("code", String(32)),
    Column("detail", Text),
    Column("held_number", Integer, index=True),  # as of a visit, of an exam that is of a trial and of no subject
    Column("said_subject", String(64)),  # by a person, as all that follows
    Column("said_visit", String(64)),
    Column("set_aside", Boolean, nullable=False, default=False),
    Column("not_evaluable", Text),  # why a person says so
    Column("accepted", JSON),  # {kind of doubt: why}: what a person has looked into and found to be no reason
    Column("said_by", String(64)),
    Column("said_reason", Text),
    Column("said_at", UtcDateTime),
    Index("trial_exam_by_patient", "patient_digest"),
    Index("trial_exam_by_trial", "trial_id", "subject_id"),
)

#: What counts of the result of a finished analysis, as its result.json said it: kept when retention takes the files.
trial_result = Table(
    "trial_result",
    metadata,
    Column("job_id", ForeignKey("job.id"), primary_key=True, autoincrement=False),
    Column("exam_id", ForeignKey("exam.id"), nullable=False, index=True),
    Column("version", Integer, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("finished_at", UtcDateTime, nullable=False),
    Column("protocol", String(256), nullable=False),
    Column("reasons", JSON, nullable=False),  # [{"code", "detail"}]
    Column("versions", JSON, nullable=False),
    Column("discs", JSON, nullable=False),  # {level: {"volume_mm3": ..., ...}}: the shape of the spine
    Column("acquisition", JSON),
)

#: A visit that did not come, told once. ``resolved_at``: it came, or is not expected any more.
missed_visit = Table(
    "trial_missed_visit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("subject_id", ForeignKey("trial_subject.id"), nullable=False),
    Column("visit", String(64), nullable=False),
    Column("due_until", Date, nullable=False),
    Column("told_at", UtcDateTime, nullable=False),
    Column("resolved_at", UtcDateTime),
    UniqueConstraint("subject_id", "visit"),
)

#: An exam that was taken for a visit. Planned visits without a scan have no row: the plan and the day tell them.
visit = Table(
    "trial_visit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("subject_id", ForeignKey("trial_subject.id"), nullable=False, index=True),
    Column("name", String(64), nullable=False),  # of the plan; "unscheduled" where it is none of it
    Column("exam_id", ForeignKey("exam.id"), nullable=False, unique=True),
    Column("job_id", Integer),  # the result that counts: of the newest done job of the exam, or of the frozen one
    Column("state", String(16), nullable=False, index=True),  # service.states.VisitState
    Column("scanned_at", String(32)),  # ISO 8601 local time of the scanner, without zone
    Column("scan_date", Date),
    Column("assigned_by", String(16), nullable=False),  # attributes, mapping, date, person
    Column("code", String(32)),  # why it is held or does not count: a reason code
    Column("detail", Text),
    Column("held_number", Integer, index=True),  # counts up each time one becomes held: what is new to be told
    Column("doubts", JSON),  # kinds of doubt for which it is held: what a person may accept; "" is nothing of these
    Column("deviations", JSON),  # [{"what", "baseline", "visit", "hard", "text"}]
    Column("changed_at", UtcDateTime, nullable=False),
    Index("trial_visit_by_name", "subject_id", "name"),
)

#: A disc that cannot be evaluated from a visit on: operated on, fused, destroyed. Never imputed.
non_evaluable = Table(
    "trial_non_evaluable",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("subject_id", ForeignKey("trial_subject.id"), nullable=False, index=True),
    Column("level", String(8), nullable=False),
    Column("from_visit", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("noted_by", String(64), nullable=False),
    Column("noted_at", UtcDateTime, nullable=False),
    Column("withdrawn_at", UtcDateTime),
)

#: What a site says of exams whose headers do not: which subject and visit a study, or a patient's day, is.
mapping = Table(
    "trial_mapping",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("trial_id", ForeignKey("trial.id"), nullable=False),
    Column("study_uid", String(64)),
    Column("patient_digest", String(64)),
    Column("study_date", Date),
    Column("subject_id", String(64), nullable=False),
    Column("visit", String(64)),
    Column("imported_at", UtcDateTime, nullable=False),
    Index("trial_mapping_by_study", "study_uid"),
    Index("trial_mapping_by_patient", "patient_digest"),
)

#: A report about a subject. ``inputs_digest``: of what it shows; the same inputs make no new version.
subject_report = Table(
    "trial_report",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("subject_id", ForeignKey("trial_subject.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("inputs_digest", String(64), nullable=False),
    Column("folder", String(255), nullable=False),  # relative to the storage folder
    Column("job_id", Integer, nullable=False),  # of the newest visit in it: its deliveries are counted there
    Column("has_warnings", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("subject_id", "version"),
)

#: A subject whose report is to be made, or made anew, and why.
report_due = Table(
    "trial_report_due",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("subject_id", ForeignKey("trial_subject.id"), nullable=False, unique=True),
    Column("why", String(255), nullable=False),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("not_before", UtcDateTime, nullable=False),
    Column("error", Text),
)

#: A decision of a person with its meaning: an electronic signature. ``content_sha256`` binds it to what was decided on.
signature = Table(
    "signature",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("subject_of", String(16), nullable=False),  # job, report, visit, trial
    Column("subject_key", Integer, nullable=False),
    Column("decision", String(16), nullable=False),  # approved, rejected, queried, resolved, unblinded, ...
    Column("meaning", String(255), nullable=False),
    Column("code", String(32)),  # coded reason of a rejection or query
    Column("reason", Text),
    Column("signed_by", String(64), nullable=False),
    Column("signed_at", UtcDateTime, nullable=False),
    Column("content_sha256", String(64), nullable=False),
    Column("signed_via", String(96)),  # web, or the command line with the system's user
    Index("signature_by_subject", "subject_of", "subject_key"),
)

#: A question to a site about an exam, which may be a visit's.
query = Table(
    "trial_query",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("exam_id", ForeignKey("exam.id"), nullable=False, index=True),
    Column("visit_id", ForeignKey("trial_visit.id"), index=True),
    Column("code", String(32), nullable=False),
    Column("text", Text, nullable=False),
    Column("state", String(16), nullable=False, index=True),  # service.states.QueryState
    Column("opened_by", String(64), nullable=False),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("due_on", Date),
    Column("resolution", String(32)),
    Column("resolution_text", Text),
    Column("resolved_by", String(64)),
    Column("resolved_at", UtcDateTime),
)

#: A visit as a blinded reader sees it: a reading ID, in a random order of its own for each reader.
reading = Table(
    "trial_reading",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("visit_id", ForeignKey("trial_visit.id"), nullable=False),
    Column("reader", String(64), nullable=False),
    Column("reading_id", String(64), nullable=False, unique=True),
    Column("place", Integer, nullable=False),
    Column("is_repeat", Boolean, nullable=False),  # the same visit again, to tell how far a reader agrees with himself
    Column("opened_at", UtcDateTime),
    Column("done_at", UtcDateTime),
)

#: A measured scan of a QC phantom. ``vials``: [{"vial", "quantity", "mean_ms", "sd_ms", "n", "snr"}].
phantom_scan = Table(
    "phantom_scan",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("exam_id", ForeignKey("exam.id"), unique=True),
    Column("job_id", Integer, nullable=False),  # the newest result of the exam
    Column("template", String(64), nullable=False),
    Column("device_serial", String(64), nullable=False, index=True),
    Column("scanner", String(255), nullable=False, index=True),  # serial / software / coil / protocol: a chart
    Column("scan_date", Date, nullable=False),
    Column("scanned_at", String(32)),  # on the scanner's clock
    Column("temperature_c", String(16)),
    Column("vials", JSON, nullable=False),
    Column("verdict", String(16), nullable=False),  # ok, warning, hold
    Column("detail", Text, nullable=False),
    Column("event", Text, nullable=False, default=""),  # what began with it: another scanner, software, coil
    Column("measured_at", UtcDateTime, nullable=False),
    Column("accepted_by", String(64)),  # a person looked into a hold and lifted it
    Column("accepted_reason", Text),
    Column("accepted_at", UtcDateTime),
    Column("set_aside_by", String(64)),  # a person says that it does not count: it stood wrongly, say
    Column("set_aside_reason", Text),
    Column("told_at", UtcDateTime),  # that the next one is overdue
    Index("phantom_scan_told", "told_at"),
)

#: De-identified copies of a result, for destinations that get nothing else: whose they were made as, and when.
deidentified = Table(
    "trial_copy",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", ForeignKey("job.id"), nullable=False, unique=True),
    Column("subject_id", ForeignKey("trial_subject.id"), nullable=False),
    Column("visit", String(64), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("not_before", UtcDateTime, nullable=False),  # while it is not made: of the next attempt
    Column("made_at", UtcDateTime),
    Column("n_objects", Integer),
    Column("code", String(32)),  # why it could not be made: a reason code
    Column("detail", Text),
)
