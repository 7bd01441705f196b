"""Default deny: whoever is not a peer in every respect is refused, with the reason that PS3.8 has for it."""

import logging
from dataclasses import replace

import pytest

from config.settings import Settings, SettingsError
from dicom_io import access
from dicom_io.access import Admission, Call, DenialLog, Refused, admit, callers_of
from dicom_io.presentation import VERIFICATION
from dicom_io.tls import PeerCertificate

MR, CT, COMMITMENT = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.20.1"
PRINT = "aa" * 32
CALL = Call("MR3T", "DISCNODE", "10.0.0.20")
TLS = {"certificate_file": "c", "key_file": "k", "ca_file": "a"}


def answer(call: Call, **settings: object) -> Admission | tuple[int, int, int]:
    """The admission, or result, source and reason of the rejection."""
    try:
        return admit(callers_of(Settings.model_validate(settings)), call)
    except Refused as refusal:
        return refusal.result, refusal.source, refusal.reason


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (CALL, Admission("MR3T")),
        (replace(CALL, address="::ffff:10.0.0.20"), Admission("MR3T")),
        (replace(CALL, called_ae="OTHER"), (1, 1, 7)),
        (replace(CALL, calling_ae="MR1T"), (1, 1, 3)),
        (replace(CALL, calling_ae="mr3t"), (1, 1, 3)),
        (replace(CALL, address="10.0.0.21"), (1, 1, 3)),
        (replace(CALL, address="127.0.0.1"), (1, 1, 3)),  # this machine is no peer either, where there are any
        (Call("NET", "DISCNODE", "10.1.2.3"), Admission("NET")),
        (Call("NET", "DISCNODE", "10.2.0.1"), (1, 1, 3)),
        (Call("NAMED", "DISCNODE", "127.0.0.1"), Admission("NAMED")),
        (Call("NAMED", "DISCNODE", "10.0.0.20"), (1, 1, 3)),
        (Call("NOWHERE", "DISCNODE", "10.0.0.20"), (1, 1, 3)),
        (Call("TWICE", "DISCNODE", "10.0.0.1"), Admission("TWICE")),
        (Call("TWICE", "DISCNODE", "10.0.0.2"), Admission("TWICE")),
        (Call("DISCNODE", "DISCNODE", "127.0.0.1"), Admission("DISCNODE", is_own=True)),
        (Call("DISCNODE", "DISCNODE", "10.0.0.20"), (1, 1, 3)),
    ],
)
def test_a_caller_must_be_a_peer_in_every_respect(call: Call, expected: object) -> None:
    peers = [
        {"ae_title": "MR3T", "host": "10.0.0.20"},
        {"ae_title": "NET", "host": "10.1.0.0/16"},
        {"ae_title": "NAMED", "host": "localhost"},
        {"ae_title": "NOWHERE", "host": "host.invalid"},
        {"ae_title": "TWICE", "host": "10.0.0.1"},
        {"ae_title": "TWICE", "host": "10.0.0.2"},
    ]
    assert answer(call, peers=peers) == expected


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "127.8.8.8", "::ffff:127.0.0.1"])
def test_without_peers_only_this_machine_is_served(address: str) -> None:
    assert answer(Call("ANYONE", "DISCNODE", address), bind="0.0.0.0") == Admission("ANYONE")
    assert answer(Call("ANYONE", "OTHER", address), bind="0.0.0.0") == (1, 1, 7)


def test_without_peers_nobody_else_is() -> None:
    assert answer(CALL, bind="0.0.0.0") == (1, 1, 3)
    assert answer(CALL, bind="10.0.0.20") == Admission("MR3T")  # the node's own address
    sources = [{"name": "pacs", "ae_title": "PACS", "host": "10.0.0.5", "port": 104}]
    assert answer(CALL, bind="0.0.0.0", sources=sources) == (1, 1, 3)
    assert answer(Call("PACS", "DISCNODE", "10.0.0.5"), bind="0.0.0.0", sources=sources) == Admission("PACS")
    assert answer(Call("PACS", "DISCNODE", "10.0.0.6"), bind="0.0.0.0", sources=sources) == (1, 1, 3)


def test_a_destination_may_report_and_send_nothing() -> None:
    pacs = {"name": "pacs", "ae_title": "PACS", "host": "10.0.0.5", "port": 104}
    call = Call("PACS", "DISCNODE", "10.0.0.5")
    peers = [{"ae_title": "MR3T", "host": "10.0.0.20"}]
    admission = answer(call, peers=peers, destinations=[pacs])
    assert admission == Admission("PACS", frozenset())
    assert [admission.permits(one) for one in (VERIFICATION, MR, COMMITMENT)] == [True, False, True]
    assert answer(replace(call, address="10.0.0.6"), peers=peers, destinations=[pacs]) == (1, 1, 3)
    assert answer(call, peers=peers, destinations=[pacs], sources=[pacs]) == Admission("PACS")
    assert answer(call, destinations=[pacs]) == Admission("PACS", frozenset())
    assert answer(replace(call, address="127.0.0.1"), destinations=[pacs]) == Admission("PACS")  # this machine
    listed = [{"ae_title": "PACS", "host": "10.0.0.5", "sop_classes": ["MRImageStorage"]}]
    assert answer(call, peers=listed, destinations=[pacs]) == Admission("PACS", frozenset({MR}))


def test_whom_we_call_by_tls_calls_by_tls_with_the_certificate_that_we_check() -> None:
    called = {"ca_file": "a"}
    pacs = {"name": "pacs", "ae_title": "PACS", "host": "pacs.hospital.example", "port": 104, "tls": called}
    near = {**pacs, "ae_title": "NEAR", "host": "127.0.0.1", "name": "near"}
    any_name = {**near, "ae_title": "ANY", "name": "any", "tls": {**called, "verify": "authority"}}
    rules = callers_of(Settings.model_validate({"tls": TLS, "sources": [pacs, near], "destinations": [any_name]}))
    assert [peer.certificate for peer in rules.peers] == [("pacs.hospital.example",), ("127.0.0.1",)]
    assert answer(Call("NEAR", "DISCNODE", "127.0.0.1"), sources=[near]) == Admission("NEAR")  # no port for TLS
    shown = PeerCertificate(PRINT, frozenset({"127.0.0.1"}))
    assert admit(rules, Call("NEAR", "DISCNODE", "127.0.0.1", shown, by_tls=True)) == Admission("NEAR")
    for call in (
        Call("NEAR", "DISCNODE", "127.0.0.1"),
        Call("NEAR", "DISCNODE", "127.0.0.1", PeerCertificate(PRINT, frozenset({"x"})), by_tls=True),
    ):
        with pytest.raises(Refused):
            admit(rules, call)


def test_a_peer_sends_what_it_may_and_nothing_else() -> None:
    peers = [{"ae_title": "MR3T", "host": "10.0.0.20", "sop_classes": ["MRImageStorage"]}]
    admission = answer(CALL, peers=peers)
    assert admission == Admission("MR3T", frozenset({MR}))
    assert [admission.permits(one) for one in (VERIFICATION, MR, CT, COMMITMENT)] == [True, True, False, True]
    everything, own = Admission("MR3T"), Admission("DISCNODE", is_own=True)
    assert [everything.permits(one) for one in (VERIFICATION, MR, CT, COMMITMENT)] == [True] * 4
    assert [own.permits(one) for one in (VERIFICATION, MR, CT, COMMITMENT)] == [True, False, False, False]
    with pytest.raises(SettingsError, match="MR3T: sop_classes: MRImage is no storage SOP class"):
        answer(CALL, peers=[{"ae_title": "MR3T", "sop_classes": ["MRImage"]}])


BOUND = PeerCertificate(PRINT, frozenset({"mr3t.hospital.example"}))


@pytest.mark.parametrize("bound_to", [PRINT, f"SHA256:{PRINT.upper()}", "MR3T.hospital.example", ["other", PRINT]])
def test_a_certificate_is_bound_to_the_ae_title(bound_to: object) -> None:
    peers = [{"ae_title": "MR3T", "host": "10.0.0.20", "certificate": bound_to}, {"ae_title": "PLAIN"}]
    for call, expected in (
        (replace(CALL, by_tls=True, certificate=BOUND), Admission("MR3T")),
        (replace(CALL, by_tls=True, certificate=PeerCertificate("bb" * 32, frozenset({"mr1t"}))), (1, 1, 3)),
        (replace(CALL, by_tls=True), (1, 1, 3)),
        (CALL, (1, 1, 3)),  # without TLS nobody shows who they are
        (Call("PLAIN", "DISCNODE", "10.0.0.9"), Admission("PLAIN")),
        (Call("PLAIN", "DISCNODE", "10.0.0.9", BOUND, by_tls=True), (1, 1, 3)),  # bound to nobody of that title
    ):
        assert answer(call, peers=peers, tls=TLS) == expected


def test_where_certificates_are_optional_tls_alone_will_do() -> None:
    tls = {**TLS, "client_certificate": "optional"}
    peers = [{"ae_title": "MR3T", "tls": True}]
    assert answer(replace(CALL, by_tls=True), peers=peers, tls=tls) == Admission("MR3T")
    assert answer(CALL, peers=peers, tls=tls) == (1, 1, 3)


class Denials:
    """A log of refusals whose time the test gives."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.now_s = 0.0
        self.told: list[tuple[str, str, str]] = []
        self.log = DenialLog(lambda *told: self.told.append(told), lambda: self.now_s)
        self._caplog = caplog
        caplog.set_level(logging.WARNING)

    def refuse(self, n: int, title: str = "STRANGER", address: str = "10.9.9.9") -> None:
        for _ in range(n):
            self.log.note(title, address, "unknown")

    @property
    def lines(self) -> list[tuple[str, int]]:
        return [(record.calling_ae, record.times) for record in self._caplog.records]  # type: ignore[attr-defined]


def test_refusals_are_one_line_a_minute_for_each_caller(caplog: pytest.LogCaptureFixture) -> None:
    denials = Denials(caplog)
    denials.refuse(1000)
    denials.refuse(1, address="10.9.9.8")
    assert denials.lines == [("STRANGER", 1), ("STRANGER", 1)]
    denials.now_s = access.DENIALS_S
    denials.refuse(5)
    assert denials.lines[2:] == [("STRANGER", 999), ("STRANGER", 1)]
    denials.log.flush()
    assert denials.lines[4:] == [("STRANGER", 4)]
    assert sum(times for _, times in denials.lines) == len(denials.told) == 1006


def test_invented_ae_titles_get_no_more_lines(caplog: pytest.LogCaptureFixture) -> None:
    denials = Denials(caplog)
    for number in range(1000):
        denials.refuse(1, f"T{number}")
    assert len(denials.lines) == 101
    denials.log.flush()
    assert sum(times for _, times in denials.lines) == 1000
