"""Who may what on the operator's page, as a table."""

import itertools

import pytest

from service.events import Secret
from service.page.access import (
    CSRF_WRONG,
    HOST_NOT_ALLOWED,
    NO_TOKEN,
    ORIGIN_NOT_ALLOWED,
    SIGN_IN_NEEDED,
    Access,
    Asked,
    Refusal,
    Ring,
    from_elsewhere,
    host_name,
    is_forwarded,
    is_loopback,
)
from service.page.sessions import (
    ABSOLUTE_SECONDS,
    GLOBAL_ATTEMPTS,
    IDLE_SECONDS,
    PEER_ATTEMPTS,
    PEER_REFILL_SECONDS,
    PEERS_MAX,
    SESSIONS_MAX,
    Session,
    Sessions,
    Throttle,
)

SESSION = Session("fingerprint", "right", ends_at=0.0, used_at=0.0)
LOCAL, REMOTE = "127.0.0.1", "203.0.113.9"


def access(token: str | None = "x" * 20) -> Access:
    return Access(
        token=None if token is None else Secret(token),
        admin_host="0.0.0.0",  # noqa: S104 -- what many have
        allowed_hosts=("Hooks.example.com", "[2001:db8::1]"),
    )


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True), ("LOCALHOST:9090", True), ("127.0.0.1", True), ("127.8.8.8:9090", True), ("[::1]:9090", True),
        ("[::ffff:127.0.0.1]", True), ("hooks.example.com:443", True), ("[2001:db8::1]:9090", True),
        ("evil.test", False), ("evil.test:9090", False), ("localhost.evil.test", False), ("127.0.0.1.evil.test", False),
        ("hooks.example.com.evil.test", False), ("0.0.0.0:9090", False), ("203.0.113.9", False), ("", False), (":9090", False),
        ("::1", False), ("localhost:9090@evil.test", False), ("localhost:x", False), ("[::1", False), ("[::1]x", False),
        ("[]", False), ("localhost, evil.test", False), ("::", False), ("[::]", False),
    ],
)  # fmt: skip
def test_only_names_of_ours_are_answered(host: str, allowed: bool) -> None:
    asked = Asked(LOCAL, (host,), session=SESSION, csrf="right")

    for ring in Ring:
        assert (access().refusal(ring, asked) is None) is allowed


@pytest.mark.parametrize("hosts", [(), ("localhost", "localhost"), ("localhost", "evil.test")])
def test_a_request_has_one_host(hosts: tuple[str, ...]) -> None:
    assert access().refusal(Ring.PAGE, Asked(LOCAL, hosts)) == HOST_NOT_ALLOWED


def test_the_host_that_is_listened_on_is_ours() -> None:
    ours = Access(token=None, admin_host="admin.internal")

    assert ours.refusal(Ring.PAGE, Asked(REMOTE, ("admin.internal:9090",))) is None
    assert ours.refusal(Ring.PAGE, Asked(REMOTE, ("internal:9090",))) == HOST_NOT_ALLOWED


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1", True), ("127.255.0.9", True), ("::1", True), ("::ffff:127.0.0.1", True), ("::1%lo", True),
        ("::", False), ("10.0.0.1", False), ("::ffff:10.0.0.1", False), ("fe80::1%eth0", False),
        ("172.17.0.1", False), ("", False), (None, False), ("localhost", False), ("127.0.0.1.evil.test", False),
    ],
)  # fmt: skip
def test_a_peer_is_on_this_machine_by_its_address_alone(address: str | None, local: bool) -> None:
    assert is_loopback(address) is local


def expected(
    ring: Ring,
    *,
    peer: str,
    host: str,
    forwarded: bool,
    session: bool,
    csrf: str | None,
    origin: str | None,
    token: bool,
) -> Refusal | None:
    """The rules again, in the words of the contract."""
    if host == "evil.test":
        return HOST_NOT_ALLOWED
    if ring is Ring.REPLAY and origin not in (None, f"http://{host}", f"https://{host}"):
        return ORIGIN_NOT_ALLOWED
    if ring is Ring.PAGE:
        return None
    on_this_machine = peer == LOCAL and host == "localhost:9090" and not forwarded
    if ring is Ring.DATA and on_this_machine:
        return None
    if not session:
        return SIGN_IN_NEEDED if token else NO_TOKEN
    return CSRF_WRONG if ring is Ring.REPLAY and csrf != "right" else None


def test_the_table_of_rules() -> None:
    cases = itertools.product(
        Ring,
        (LOCAL, REMOTE),
        ("localhost:9090", "hooks.example.com", "evil.test"),
        (False, True),
        (False, True),
        (None, "wrong", "right"),
        (None, "null", "same", "same, by tls", "https://evil.test", "localhost:9090"),
        (False, True),
    )
    for ring, peer, host, forwarded, session, csrf, from_page, token in cases:
        origin = {"same": f"http://{host}", "same, by tls": f"https://{host}"}.get(from_page or "", from_page)
        asked = Asked(peer, (host,), (origin,) if origin else (), None, forwarded, SESSION if session else None, csrf)
        wanted = expected(
            ring, peer=peer, host=host, forwarded=forwarded, session=session, csrf=csrf, origin=origin, token=token
        )
        found = access("x" * 20 if token else None).refusal(ring, asked, reads=ring is not Ring.REPLAY)
        assert found == wanted, (ring, asked)


def test_another_ports_page_is_another_site() -> None:
    asked = Asked(LOCAL, ("localhost:9090",), ("http://localhost:3000",), session=SESSION, csrf="right")

    assert access().refusal(Ring.REPLAY, asked, reads=False) == ORIGIN_NOT_ALLOWED


@pytest.mark.parametrize(
    ("site", "elsewhere"),
    [(None, False), ("same-origin", False), ("none", False), ("same-site", True), ("cross-site", True), ("?", True)],
)
def test_a_browser_tells_whose_page_asks(site: str | None, elsewhere: bool) -> None:
    asked = Asked(LOCAL, ("localhost",), (), site, session=SESSION, csrf="right")

    assert from_elsewhere(asked) is elsewhere
    assert (access().refusal(Ring.REPLAY, asked, reads=False) == ORIGIN_NOT_ALLOWED) is elsewhere


@pytest.mark.parametrize(
    "name",
    [
        "Forwarded", "X-Forwarded-For", "x-forwarded-proto", "x_forwarded_for", "X-Original-Forwarded-For", "Via",
        "X-Real-IP", "X-Client-IP", "X-Cluster-Client-Ip", "CF-Connecting-IP", "X-Envoy-External-Address", "CDN-Loop",
    ],
)  # fmt: skip
def test_a_proxy_is_known_by_what_it_adds(name: str) -> None:
    assert is_forwarded(["Host", name])
    assert not is_forwarded(["Host", "Accept", "Cookie"])


def test_only_the_token_opens() -> None:
    ours = access("the-admin-token-is-long")

    assert ours.opens("the-admin-token-is-long")
    for wrong in ("", "the-admin-token-is-lon", "the-admin-token-is-longer", "\ud800", "x" * 10_000):
        assert not ours.opens(wrong)
    assert not access(None).opens("")


def test_malformed_hosts_have_no_name() -> None:
    assert host_name(" Example.COM:1 ") == "example.com"
    assert host_name("a:b") is None
    assert host_name("[::1]:") is None


class Clock:
    """Set by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_a_session_ends_when_it_is_idle_or_old() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    session_id, session = sessions.begin()
    assert len(session_id) >= 40
    assert session.csrf not in repr(session)

    began = clock.seconds
    while clock.seconds + IDLE_SECONDS / 2 < began + ABSOLUTE_SECONDS:
        clock.seconds += IDLE_SECONDS / 2
        assert sessions.find(session_id) is session
    clock.seconds = began + ABSOLUTE_SECONDS
    assert sessions.find(session_id) is None

    idle, _ = sessions.begin()
    clock.seconds += IDLE_SECONDS
    assert sessions.find(idle) is None
    assert sessions.find(None) is None
    assert sessions.find("of nobody") is None


def test_sessions_are_bounded_and_the_one_used_longest_ago_goes() -> None:
    sessions = Sessions(Clock())
    first, second = (sessions.begin()[0] for _ in range(2))
    assert sessions.find(first)
    others = [sessions.begin()[0] for _ in range(SESSIONS_MAX - 1)]

    assert sessions.find(first) is not None
    assert sessions.find(second) is None
    sessions.end(first)
    assert sessions.find(first) is None
    assert all(sessions.find(each) for each in others)


def test_attempts_to_sign_in_are_few_for_each_and_for_all() -> None:
    clock = Clock()
    throttle = Throttle(clock)

    assert [throttle.wait(LOCAL) for _ in range(PEER_ATTEMPTS)] == [0.0] * PEER_ATTEMPTS
    assert throttle.wait(LOCAL) == pytest.approx(PEER_REFILL_SECONDS)
    assert throttle.wait("::ffff:127.0.0.1") > 0  # the same address in another form
    assert throttle.wait(REMOTE) == 0.0
    clock.seconds += PEER_REFILL_SECONDS
    assert throttle.wait(LOCAL) == 0.0
    assert throttle.wait(LOCAL) > 0


def test_who_has_many_addresses_meets_the_bound_for_all() -> None:
    throttle = Throttle(Clock())

    waits = [throttle.wait(f"198.51.{n // 250}.{n % 250}") for n in range(PEERS_MAX + 100)]

    assert waits.count(0.0) == GLOBAL_ATTEMPTS
    of_one_network = Throttle(Clock())
    waits = [of_one_network.wait(f"2001:db8::{n:x}") for n in range(50)]
    assert waits.count(0.0) == PEER_ATTEMPTS
