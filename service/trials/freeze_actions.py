"""A person freezes a trial, or takes that back: signed, and all its subjects are decided on anew."""

from sqlalchemy import Connection, select, update

from config.settings import Settings
from service import trial_tables as db
from service.database import Database
from service.signatures import Signing, sign
from service.trials.freezing import frozen_versions
from service.trials.people import CannotDecide
from service.trials.plans import take_plans
from service.trials.registry import Trial, find_trial, trials_of
from service.trials.takeover import update_subjects


def freeze(database: Database, settings: Settings, protocol_id: str, signing: Signing) -> dict[str, object]:
    """From now on only results of what measures now count; returns what that is.

    Raises:
        CannotDecide: there is no such trial, it is frozen already, or its plan's file is not as registered.
        models.registry.ModelError: the weights cannot be used.
        service.signatures.CannotSign: name or meaning is missing.
    """
    signing.check(needs_reason=False)
    with database.write() as connection:
        take_plans(connection, settings.trials_dir, signing.at)
        trial = _trial(connection, protocol_id)
        if trial.is_frozen:
            raise CannotDecide(f"{protocol_id} is frozen since {trial.frozen_at:%Y-%m-%d}, by {trial.frozen_by}")
        if trial.deviation:
            raise CannotDecide(f"{protocol_id} cannot be frozen: {trial.deviation}")
        frozen = frozen_versions(settings, trial)
        values = {"freeze": frozen, "frozen_at": signing.at, "frozen_by": signing.by.strip()}
        connection.execute(update(db.trial).where(db.trial.c.id == trial.id).values(**values))
        sign(connection, "trial", trial.id, "frozen", signing, trial.plan_sha256)
        _all_anew(connection, trial, signing)
        return frozen


def unfreeze(database: Database, settings: Settings, protocol_id: str, signing: Signing) -> None:
    """Results of any version count again, and the plan's file as it is now.

    Raises:
        CannotDecide: there is no such trial, or it is not frozen.
        service.signatures.CannotSign: name, meaning or reason is missing.
    """
    signing.check(needs_reason=True)
    with database.write() as connection:
        trial = _trial(connection, protocol_id)
        if not trial.is_frozen:
            raise CannotDecide(f"{protocol_id} is not frozen")
        nothing = {"freeze": None, "frozen_at": None, "frozen_by": None, "deviation": None, "deviates_since": None}
        connection.execute(update(db.trial).where(db.trial.c.id == trial.id).values(**nothing))
        sign(connection, "trial", trial.id, "unfrozen", signing, trial.plan_sha256)
        take_plans(connection, settings.trials_dir, signing.at)
        _all_anew(connection, trial, signing)


def _trial(connection: Connection, protocol_id: str) -> Trial:
    try:
        return find_trial(connection, protocol_id)
    except LookupError as error:
        raise CannotDecide(str(error)) from error


def _all_anew(connection: Connection, trial: Trial, signing: Signing) -> None:
    subjects = select(db.subject.c.id).where(db.subject.c.trial_id == trial.id)
    ids = connection.execute(subjects).scalars().all()
    update_subjects(connection, trials_of(connection), ids, signing.at)
