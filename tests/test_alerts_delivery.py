"""Delivery: the log, a span, listeners, callbacks and signed webhooks; none can hold up or silence another."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme
from opentelemetry import trace
from opentelemetry.sdk.trace import Span

from dedup_middleware import Alert, Dedup, Rule
from dedup_middleware.alerts import delivery, watch, webhook
from dedup_middleware.events import AlertRaised

from .alerts_kit import Receiver, Told, serving, threads, watch_of
from .kit import FakeClock, wait_for
from .telemetry_kit import Seen, attributes

pytestmark = pytest.mark.slow

SECRET = "a secret of sixteen and more"
ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, no waiting between tries, and a watch that looks only when told."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(webhook, "DELAYS", (0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr(watch, "INTERVAL", 3600.0)


class Site:
    """An engine, and something to be alarmed about."""

    def __init__(self, clock: FakeClock, *alerts: Alert, **settings: Any) -> None:
        self.clock = clock
        self.dedup = Dedup([Rule("/git", name="git")], alerts=alerts, clock=clock, **settings)
        self.watch = watch_of(self.dedup)

    def happen(self, times: int = 1) -> None:
        """Something bad, so many times a minute apart, and told each time."""
        for _ in range(times):
            self.clock.advance(1)
            self.dedup.telemetry.count("bypassed", "credential", "git", "GET")
            self.watch.tick()
            self.clock.advance(61)
            self.watch.tick()


Make = Callable[..., Site]


@pytest.fixture
def site(clock: FakeClock) -> Iterator[Make]:
    made: list[Site] = []

    def make(*alerts: Alert, **settings: Any) -> Site:
        made.append(Site(clock, *alerts, **settings))
        return made[-1]

    yield make
    for one in made:
        one.watch._delivery.close()
        one.watch.stop()


def alert(name: str = "keys", **fields: Any) -> Alert:
    given: dict[str, Any] = {"reason": "credential", "rule": "git", "above": 0, "calm": 0, **fields}
    return Alert(name, "bypasses", **given)


RAISED = "keys: bypassed requests under git because of credential within 60 s: 1, above 0"
OVER = "keys: bypassed requests under git because of credential within 60 s: 0, no longer above 0"


def extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in record.__dict__.items() if name.startswith("dedup_")}


# -- the log ---------------------------------------------------------------------------------------------------------


def test_the_log_says_when_it_begins_and_when_it_is_over(
    site: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dedup_middleware.alerts")
    site(alert()).happen()

    raised, over = caplog.records
    assert (raised.name, raised.levelno, raised.getMessage()) == (
        "dedup_middleware.alerts",
        logging.WARNING,
        RAISED,
    )
    common = {"dedup_alert": "keys", "dedup_threshold": 0.0, "dedup_rule": "git"}
    assert extra(raised) == {**common, "dedup_turn": "raised", "dedup_value": 1.0}
    assert (over.levelno, over.getMessage()) == (logging.INFO, OVER)
    assert extra(over) == {**common, "dedup_turn": "over", "dedup_value": 0.0}


def test_an_alert_that_goes_on_is_told_again(site: Make, caplog: pytest.LogCaptureFixture) -> None:
    one = site(alert(window="1d", repeat="10m"))
    for _ in range(30):
        one.clock.advance(60)
        one.dedup.telemetry.count("bypassed", "credential", "git", "GET")
        one.watch.tick()

    assert [extra(record)["dedup_turn"] for record in caplog.records] == ["raised", "again", "again"]


def test_a_log_handler_that_fails_silences_nobody_else(
    site: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()

    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("disk full")

    handler = Failing()
    log = logging.getLogger("dedup_middleware.alerts")
    log.addHandler(handler)
    try:
        site(alert(callback=told)).happen()
    finally:
        log.removeHandler(handler)

    assert len(told.wait(2)) == 2


# -- OpenTelemetry ---------------------------------------------------------------------------------------------------


def test_a_short_span_has_it_as_its_event_and_the_log_line_inside(
    site: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen()
    traces = []
    handler = logging.Handler()
    monkeypatch.setattr(
        handler, "emit", lambda _: traces.append(trace.get_current_span().get_span_context().trace_id)
    )
    log = logging.getLogger("dedup_middleware.alerts")
    log.addHandler(handler)
    try:
        site(alert(), tracer_provider=seen.provider).happen()
    finally:
        log.removeHandler(handler)

    raised, over = seen.spans
    values = {
        "dedup.alert": "keys",
        "dedup.turn": "raised",
        "dedup.value": 1.0,
        "dedup.threshold": 0.0,
        "dedup.rule": "git",
    }
    assert (raised.name, raised.kind, raised.parent) == ("alert keys", trace.SpanKind.INTERNAL, None)
    assert attributes(raised) == values
    (event,) = raised.events
    assert (event.name, dict(event.attributes or {})) == ("dedup.alert", values)
    assert attributes(over)["dedup.turn"] == "over"
    assert raised.status.is_unset
    assert traces[0] == raised.get_span_context().trace_id  # type: ignore[union-attr] # a span that ended has one


@pytest.mark.parametrize("failing", ["get_tracer", "start_span", "add_event", "end"])
def test_a_tracer_that_fails_silences_nobody_else(
    failing: str, site: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no tracer")

    seen = Seen()
    owner = {"get_tracer": seen.provider, "start_span": type(seen.tracer)}.get(failing, Span)
    monkeypatch.setattr(owner, failing, fail)
    told = Told()
    site(alert(callback=told), tracer_provider=seen.provider).happen()

    assert len(told.wait(2)) == 2
    assert [record.getMessage() for record in caplog.records if record.name.endswith(".alerts")] == [RAISED]


# -- listeners and callbacks -----------------------------------------------------------------------------------------


def test_listeners_and_callbacks_get_the_same_event(site: Make) -> None:
    called, heard = Told(), Told()
    one = site(alert(callback=called))
    subscription = one.dedup.subscribe(heard, AlertRaised)  # type: ignore[arg-type] # a listener of one type of event
    one.happen()
    subscription.close()

    assert called.wait(2) == heard.wait(2)
    assert [(event.message, event.over) for event in called.events] == [(RAISED, False), (OVER, True)]


def test_one_callback_of_many_alerts_hears_of_each_in_one_thread(site: Make) -> None:
    before = threads("dedup-alert-courier")
    told = Told()
    one = site(*(alert(f"a{number}", callback=told) for number in range(20)))
    assert not threads("dedup-alert-courier") - before
    one.happen()

    assert len(told.wait(40)) == 40
    assert len(threads("dedup-alert-courier") - before) == 1


def test_a_callback_that_fails_costs_a_log_line_and_nobody_else(
    site: Make, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: AlertRaised) -> None:
        raise RuntimeError("token=hunter2")

    told = Told()
    one = site(alert("a", callback=fail), alert("b", callback=told))
    one.happen(3)

    told.wait(6)
    wait_for(lambda: one.watch.lost == 6)
    parts = [record.getMessage() for record in caplog.records if record.name.endswith(".parts")]
    assert parts == ["an alert was not delivered: a callback failed with RuntimeError"]


def test_a_slow_callback_loses_alerts_and_holds_up_nobody(
    site: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "MAX_WAITING", 4)
    stuck, go = threading.Event(), threading.Event()

    def slow(event: AlertRaised) -> None:
        stuck.set()
        go.wait(30)

    told = Told()
    one = site(alert("a", callback=slow), alert("b", callback=told))
    try:
        one.happen()
        assert stuck.wait(30)
        for number in range(2, 7):
            one.happen()
            told.wait(2 * number)
        assert one.watch.lost == 12 - 1 - 4
    finally:
        go.set()


def test_closing_ends_the_threads(site: Make) -> None:
    before = threads("dedup-alert-courier")
    told = Told()
    one = site(alert(callback=told))
    one.watch.start()
    one.happen()
    told.wait(2)
    (thread,) = threads("dedup-alert-courier") - before
    one.watch.stop()
    thread.join(30)

    assert not thread.is_alive()
    one.happen()
    assert len(told.wait(4)) == 4  # and it may be used again


# -- webhooks --------------------------------------------------------------------------------------------------------


def verified() -> Callable[..., Any]:
    """The function of the page."""
    page = (ROOT / "docs/alerts.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n((?:(?!```).)*?def verified\(.*?)```", page, re.DOTALL)
    given: dict[str, Any] = {}
    exec(code, given)
    found: Callable[..., Any] = given["verified"]
    return found


@pytest.mark.parametrize("secret", [SECRET, f"whsec_{base64.b64encode(bytes(range(32))).decode()}"])
def test_a_webhook_gets_json_that_the_page_s_snippet_verifies(secret: str, site: Make) -> None:
    receiver = Receiver()
    with serving(receiver) as url:
        site(alert(webhook=url, secret=secret)).happen()
        (path, headers, content), (_, _, second) = receiver.wait(2)

    assert path == "/hook/PATHSECRET"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].startswith("dedup-middleware/")
    assert re.fullmatch(r"msg_[0-9a-f]{32}", headers["webhook-id"])
    check = verified()
    now = int(headers["webhook-timestamp"])
    told = check(secret, headers, content, now=now)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", told.pop("timestamp"))
    assert told == {
        "type": "alert.raised",
        "data": {
            "alert": "keys",
            "message": RAISED,
            "value": 1.0,
            "threshold": 0.0,
            "rule": "git",
            "over": False,
        },
    }
    assert msgspec.json.decode(second)["type"] == "alert.over"
    wrong: list[tuple[str, dict[str, str], bytes, int]] = [
        (secret, {}, content + b" ", now),
        ("another secret of sixteen", {}, content, now),
        (secret, {}, content, now + 301),
        (secret, {"webhook-timestamp": str(now + 1)}, content, now),
        (secret, {"webhook-id": "msg_1"}, content, now),
        (secret, {"webhook-signature": "v1,"}, content, now),
    ]
    for given, changed, posted, at in wrong:
        with pytest.raises(ValueError, match="webhook"):
            check(given, {**headers, **changed}, posted, now=at)


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of the specification's own libraries."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    content = b'{"test": 2432232314}'

    assert (
        webhook.signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, content)
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_a_receiver_that_fails_for_a_while_gets_it_in_the_end_under_one_id(site: Make) -> None:
    receiver = Receiver(500, 503, 429, 408)
    with serving(receiver) as url:
        one = site(alert(webhook=url, secret=SECRET, repeat=0, calm="1h"))
        one.happen()
        got = receiver.wait(5)
    key = SECRET.encode()

    assert len({headers["webhook-id"] for _, headers, _ in got}) == 1
    for _, headers, content in got:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + content
        digest = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        assert headers["webhook-signature"] == f"v1,{digest}"
    assert one.watch.lost == 0


@pytest.mark.parametrize(
    ("statuses", "tries", "failure"),
    [
        ([500] * 9, 5, "status 500"),
        ([400], 1, "status 400"),
        ([401], 1, "status 401"),
        ([410], 1, "status 410"),
    ],
)
def test_a_receiver_that_refuses_is_asked_only_so_often(
    statuses: list[int], tries: int, failure: str, site: Make, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = Receiver(*statuses)
    with serving(receiver) as url:
        one = site(alert(webhook=url, secret=SECRET, calm="1h"))
        one.happen()
        wait_for(lambda: one.watch.lost == 1)
    parts = [record.getMessage() for record in caplog.records if record.name.endswith(".parts")]

    assert len(receiver.got) == tries
    host = url.split("/hook")[0]
    assert parts == [f"an alert was not delivered: the webhook {host}/*** failed with {failure}"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int, site: Make) -> None:
    elsewhere = Receiver()
    with serving(elsewhere) as target:
        receiver = Receiver(status, headers={"location": target})
        with serving(receiver) as url:
            one = site(alert(webhook=url, secret=SECRET, calm="1h"))
            one.happen()
            wait_for(lambda: one.watch.lost == 1)

    assert (len(receiver.got), len(elsewhere.got)) == (1, 0)


def test_a_receiver_that_is_not_there_is_told_without_its_path(
    site: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(Receiver()) as url:
        pass
    one = site(alert(webhook=url, secret=SECRET, calm="1h"))
    one.happen()
    wait_for(lambda: one.watch.lost == 1)
    (told,) = [record.getMessage() for record in caplog.records if record.name.endswith(".parts")]

    assert told.endswith("/*** failed with ConnectionRefusedError")


def test_a_receiver_that_hangs_is_left_after_a_while_and_holds_up_nobody(
    site: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(webhook, "TIMEOUT", 0.05)
    monkeypatch.setattr(webhook, "DELAYS", (0.0,))
    receiver, told = Receiver(), Told()
    receiver.go.clear()
    with serving(receiver) as url:
        one = site(alert("a", webhook=url, secret=SECRET, calm="1h"), alert("b", callback=told))
        one.happen()
        told.wait(2)
        wait_for(lambda: one.watch.lost == 1)

    (record,) = [record for record in caplog.records if record.name.endswith(".parts")]
    assert record.getMessage().endswith("failed with TimeoutError")


def test_closing_ends_the_waiting_between_two_tries(site: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "DELAYS", (3600.0,))
    before = threads("dedup-alert-courier")
    receiver = Receiver(500, 500, 500)
    with serving(receiver) as url:
        one = site(alert(webhook=url, secret=SECRET))
        one.watch.start()
        one.happen()
        receiver.wait(1)
        (thread,) = threads("dedup-alert-courier") - before
        one.watch.stop()
        thread.join(30)

    assert not thread.is_alive()
    assert [msgspec.json.decode(content)["type"] for _, _, content in receiver.got] == [
        "alert.raised",
        "alert.over",
    ]


@pytest.mark.parametrize("trusted", [True, False])
def test_a_certificate_is_checked(
    trusted: bool,
    site: Make,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    receiver = Receiver()
    with serving(receiver, tls) as url:
        one = site(alert(webhook=url, secret=SECRET, calm="1h"))
        one.happen()
        if trusted:
            receiver.wait(1)
        else:
            wait_for(lambda: one.watch.lost == 1)

    assert bool(receiver.got) is trusted
    assert [
        record.getMessage().rpartition(" ")[2] for record in caplog.records if ".parts" in record.name
    ] == ([] if trusted else ["SSLCertVerificationError"])


def test_no_record_span_or_event_shows_a_secret(site: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seen = Seen()
    receiver = Receiver(*[500] * 5)
    with serving(receiver) as url:
        one = site(
            alert(webhook=f"{url}?token=QUERYSECRET", secret=SECRET, calm="1h"), tracer_provider=seen.provider
        )
        one.happen()
        wait_for(lambda: one.watch.lost == 1)
    told = [str(record.__dict__) for record in caplog.records]
    told += [span.to_json() for span in seen.spans] + [
        str(headers) + content.decode() for _, headers, content in receiver.got
    ]

    assert told
    assert not re.search("PATHSECRET|QUERYSECRET|sixteen", " ".join(told))
