"""Which exams a trial claims."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert
from trial_site import DAY_ZERO, NOW, Scan, Site, open_site

from service import trial_tables as db
from service.trials.identity import patient_digest
from service.trials.matching import claiming_plan, unread_plan
from service.trials.registry import register_plans, trials_of


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    opened = open_site(tmp_path)
    yield opened
    opened.database.close()


def _claims(site: Site, scan: Scan) -> bool:
    plan = claiming_plan(site.database, site.settings, site.add(scan))
    assert plan is None or plan.protocol_id == "DISC-1"
    return plan is not None


def test_an_exam_that_names_the_trial_is_claimed_whatever_its_subject(site: Site) -> None:
    assert _claims(site, Scan())
    assert _claims(site, Scan(protocol_id=" disc-1 "))
    assert _claims(site, Scan(subject="not in the plan"))
    assert not _claims(site, Scan(protocol_id=""))
    assert not _claims(site, Scan(protocol_id="OTHER"))


def test_a_phantom_is_no_subject(site: Site) -> None:
    assert not _claims(site, Scan(patient_id="QC-vials"))


def test_a_mapped_study_and_a_known_patient_are_claimed(site: Site) -> None:
    with site.database.write() as connection:
        register_plans(connection, site.settings.trials_dir, NOW)
        trial = trials_of(connection)[0]
        digest = patient_digest(site.settings.storage_dir, "HOSP-1")
        values = {"trial_id": trial.id, "subject_id": "01-001", "imported_at": NOW}
        row = {"patient_digest": digest, "study_date": DAY_ZERO, "visit": "BL", **values}
        connection.execute(insert(db.mapping).values(**row))
    assert _claims(site, Scan(protocol_id="", subject=""))
    assert not _claims(site, Scan(protocol_id="", subject="", day=1))
    assert not _claims(site, Scan(protocol_id="", subject="", patient_id="HOSP-2"))
    with site.database.write() as connection:
        known = {"trial_id": trial.id, "subject_id": "01-001", "site_id": "01", "state": "active"}
        connection.execute(insert(db.subject).values(patient_digest=digest, created_at=NOW, is_listed=False, **known))
    assert _claims(site, Scan(protocol_id="", subject="", day=1))
    assert not _claims(site, Scan(protocol_id="OTHER", subject="", day=1))


def test_a_node_without_trials_claims_nothing(site: Site) -> None:
    without = site.settings.model_copy(update={"trials_dir": None})
    assert claiming_plan(site.database, without, site.add(Scan())) is None


def test_trials_on_record_claim_their_exams_though_the_settings_name_no_folder(site: Site) -> None:
    """A line lost from the settings must not send a trial's exams wherever the routes lead."""
    site.sweep()
    without = site.settings.model_copy(update={"trials_dir": None})
    assert claiming_plan(site.database, without, site.add(Scan())) is not None


def test_an_exam_that_names_a_trial_may_be_of_a_plan_that_cannot_be_read(site: Site) -> None:
    """A plan that was broken from its first day claims nothing; its exams must not leave by the clinical routes."""
    other, clinical = site.add(Scan(protocol_id="OTHER")), site.add(Scan(protocol_id=""))
    assert unread_plan(site.database, site.settings, other) == ""
    assert site.settings.trials_dir is not None
    (site.settings.trials_dir / "other.yaml").write_text("protocol_id: OTHER\nvisits: nonsense\n")
    assert "other.yaml" in unread_plan(site.database, site.settings, other)
    assert unread_plan(site.database, site.settings, clinical) == ""
