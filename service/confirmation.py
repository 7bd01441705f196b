"""Delivered means confirmed: a destination is asked whether it has what it took, and what it has not is sent again.

Asked by storage commitment where it takes part in it, else by a query. What cannot be confirmed stays "sent".
"""

import logging
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from config.settings import Confirm, Destination, Settings
from dicom_io.commitment import ListedObject
from dicom_io.commitment_scu import ask_commitment, new_transaction_uid
from dicom_io.presence import Presence, SentObject, find_present, read_sent_object, search_present
from dicom_io.sender import NotOffered, PeerUnavailable
from service import asked_commitments
from service.addresses import peer_of, web_service_of
from service.database import Database
from service.deliveries import BY_QUERY, Delivery, ask_later, confirm, deny, sent_due
from service.unconfirmed import NO_WAY, can_never_confirm, leave_unconfirmed, no_way_until, was_denied_before

_log = logging.getLogger(__name__)

REPORT_WAIT_S = 3.0  # for a result over the same association
LONGEST_S = 86_400.0


Asked = Mapping[Delivery, SentObject]


def confirm_due(
    database: Database,
    destination: Destination,
    settings: Settings,
    *,
    stopping: Callable[[], bool] = lambda: False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Ask a destination about what it took, where that is due."""
    if destination.confirm is Confirm.NONE:
        return
    asked_commitments.expire(database, destination.name, now())
    taken = sent_due(database, destination.name, now())
    if taken and _leave_where_no_way(database, destination.name, now()):
        taken = sent_due(database, destination.name, now())
    if taken:
        _Enquiry(database, destination, settings, stopping, now).ask(taken)


def _leave_where_no_way(database: Database, destination: str, now: datetime) -> bool:
    """Whether it has said not long ago that it offers no way: then it is not asked about every new object."""
    with database.read() as connection:
        until = no_way_until(connection, destination, now)
    if until is not None:
        with database.write() as connection:
            leave_unconfirmed(connection, destination, until, now)
    return until is not None


class _Enquiry:
    """One look at what a destination is to be asked about."""

    def __init__(
        self,
        database: Database,
        destination: Destination,
        settings: Settings,
        stopping: Callable[[], bool],
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._destination = destination
        self._settings = settings
        self._stopping = stopping
        self._now = now

    def ask(self, taken: Sequence[Delivery]) -> None:
        """Ask for commitment, or query; after a commitment request without result, query."""
        objects = self._objects(taken)
        first = {one: objects[one] for one in objects if self._asks_commitment_first(one)}
        try:
            left = self._request(first) if first else {}
            rest = {one: objects[one] for one in objects if one not in first}
            if left or rest:
                self._query({**left, **rest})
        except NotOffered as error:
            self._leave(objects, error)
        except PeerUnavailable as error:
            self._ask_later(objects, str(error), self._settings.delivery.longest_retry_s)

    def _asks_commitment_first(self, one: Delivery) -> bool:
        way = self._destination.confirm
        can_be_asked = self._destination.dicomweb_url is None
        return way is Confirm.COMMITMENT or (way is Confirm.AUTO and can_be_asked and one.asks == 0)

    def _objects(self, taken: Sequence[Delivery]) -> dict[Delivery, SentObject]:
        """What was sent; of what an earlier version sent, read from its file."""
        found: dict[Delivery, SentObject] = {}
        for one in taken:
            sent = one.sent_object or read_sent_object(self._settings.storage_dir / one.path)
            if sent is None:
                self._ask_later([one], "its file cannot be read", LONGEST_S)
            else:
                found[one] = sent
        return found

    def _request(self, objects: Asked) -> Asked:
        """Make a commitment request; returns what is to be asked in another way, because it was not taken.

        Raises:
            PeerUnavailable: it was not taken, and there is to be no other way.
        """
        now, waits = self._now(), self._settings.delivery
        wait_s = min(waits.commitment_wait_s * 2.0 ** min(30, max(one.asks for one in objects)), LONGEST_S)
        uid, deliveries = new_transaction_uid(), list(objects)
        name, database = self._destination.name, self._database
        asked_commitments.open_request(database, name, uid, deliveries, now, now + timedelta(seconds=wait_s))
        listed = [ListedObject(sent.sop_class_uid, sent.sop_instance_uid) for sent in objects.values()]
        peer, take = (
            peer_of(self._destination, self._settings),
            asked_commitments.open_results(database, self._settings, self._now),
        )
        try:
            ask_commitment(peer, uid, listed, take, wait_s=REPORT_WAIT_S, stopping=self._stopping)
        except PeerUnavailable as error:
            was_made = not isinstance(error, NotOffered)
            asked_commitments.lose(database, uid, deliveries, str(error), self._now(), was_made=was_made)
            if self._destination.confirm is Confirm.COMMITMENT:
                raise
            return objects
        _log.info("commitment requested", extra={"destination": name, "objects": len(objects)})
        return {}

    def _query(self, objects: Asked) -> None:
        """Confirm what a query shows; what it does not show for long is sent again.

        Raises:
            NotOffered: the destination has no query.
            PeerUnavailable: it cannot be asked now.
        """
        shown = shown_by(self._destination, self._settings, objects.values()).asked
        unseen = [one for one in objects if one.sop_uid not in shown]
        now, waits = self._now(), self._settings.delivery
        given_up = [one for one in unseen if (now - _sent_at(one)).total_seconds() >= waits.unseen_after_s]
        with self._database.write() as connection:
            known_liar = was_denied_before(connection, self._destination.name)
            for one in objects:
                if one.sop_uid in shown:
                    confirm(connection, one, BY_QUERY, now)
            for one in given_up:
                deny(connection, one, "taken, but a query does not show it", waits, now)
        self._ask_later([one for one in unseen if one not in given_up], "not yet shown by a query", LONGEST_S)
        facts = {"destination": self._destination.name, "confirmed": len(objects) - len(unseen), "unseen": len(unseen)}
        is_news = bool(given_up) and not known_liar
        _log.log(logging.WARNING if is_news else logging.INFO, "queried", extra={**facts, "denied": len(given_up)})

    def _leave(self, objects: Asked, error: NotOffered) -> None:
        """Neither way is offered: it stays sent, and that is said once. After a lost request, another is made."""
        may_ask = self._destination.confirm is Confirm.AUTO and self._destination.dicomweb_url is None
        again = {one: sent for one, sent in objects.items() if may_ask and one.asks > 0}
        if again and self._request(again) == {}:
            objects = {one: sent for one, sent in objects.items() if one not in again}
        if not objects:
            return
        name, now = self._destination.name, self._now()
        with self._database.read() as connection:
            is_news = not can_never_confirm(connection, name)
        if is_news:
            _log.warning("sent, and cannot be confirmed", extra={"destination": name, "why": str(error)})
        self._ask_later(objects, NO_WAY, LONGEST_S)
        with self._database.write() as connection:  # others that are due would be told the same
            until = no_way_until(connection, name, now)
            if until is not None:
                leave_unconfirmed(connection, name, until, now)

    def _ask_later(self, deliveries: Iterable[Delivery], why: str, longest_s: float) -> None:
        """Ask again when as much time has passed as since it was sent, within limits."""
        now, first_s = self._now(), self._settings.delivery.first_retry_s
        with self._database.write() as connection:
            for one in deliveries:
                passed_s = (now - _sent_at(one)).total_seconds()
                delay_s = min(max(passed_s, first_s), longest_s) * (0.8 + 0.4 * random.random())
                ask_later(connection, one, now + timedelta(seconds=delay_s), why)


def shown_by(destination: Destination, settings: Settings, objects: Collection[SentObject]) -> Presence:
    """Which objects a destination shows in a query.

    Raises:
        NotOffered: it has none.
        PeerUnavailable: it cannot be asked now.
    """
    service = web_service_of(destination, settings)
    if service is None:
        return find_present(peer_of(destination, settings), objects)
    return search_present(service, objects)


def _sent_at(one: Delivery) -> datetime:
    return one.sent_at or one.not_before
