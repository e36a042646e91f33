"""Ties between clients and targets."""

from __future__ import annotations

from timewait.balancer.routing.sessions import CookieSessions, SourceSessions


def test_a_source_is_known_until_it_was_quiet_for_long_enough() -> None:
    sessions = SourceSessions(ttl=30.0)
    sessions.keep(b"1", "a", now=0.0)
    assert sessions.find(b"1", now=29.0) == "a"
    assert sessions.find(b"1", now=58.0) == "a"
    assert sessions.find(b"1", now=88.0) is None
    assert sessions.find(b"2", now=88.0) is None
    assert len(sessions) == 0


def test_memory_is_bounded_and_the_quietest_goes_first() -> None:
    sessions = SourceSessions(ttl=30.0, capacity=3)
    for number in range(3):
        sessions.keep(b"%d" % number, "a", now=0.0)
    sessions.find(b"0", now=1.0)
    sessions.keep(b"3", "b", now=2.0)
    assert [sessions.find(b"%d" % number, now=3.0) for number in range(4)] == ["a", None, "a", "b"]


def test_what_expired_is_dropped_although_nobody_asks() -> None:
    sessions = SourceSessions(ttl=30.0)
    for number in range(100):
        sessions.keep(b"%d" % number, "a", now=0.0)
    sessions.keep(b"x", "b", now=31.0)
    assert len(sessions) == 1


def test_a_target_that_left_is_forgotten() -> None:
    sessions = SourceSessions(ttl=30.0)
    sessions.keep(b"1", "a", now=0.0)
    sessions.keep(b"2", "b", now=0.0)
    sessions.forget("a")
    assert (sessions.find(b"1", now=1.0), sessions.find(b"2", now=1.0)) == (None, "b")


def cookie_of(sessions: CookieSessions, target: str) -> bytes:
    """What a client would send back."""
    return sessions.fields(target).partition(b": ")[2].partition(b";")[0]


def test_a_cookie_leads_back_to_its_target() -> None:
    sessions = CookieSessions("CLB", 3600, b"key", "app", ["10.0.0.1:80", "10.0.0.2:80"])
    for target in ("10.0.0.1:80", "10.0.0.2:80"):
        assert sessions.find(b"a=b; " + cookie_of(sessions, target)) == target
    assert sessions.find(b"CLB=10.0.0.1:80") is None
    assert sessions.find(b"CLB=") is None
    assert sessions.find(b"") is None


def test_a_cookie_tells_nothing_and_is_for_http_alone() -> None:
    fields = CookieSessions("CLB", 60, b"key", "app", ["10.0.0.1:80"], secure=True).fields("10.0.0.1:80")
    assert fields.endswith(b"; Path=/; Max-Age=60; HttpOnly; Secure\r\nCache-Control: private\r\n")
    assert b"10.0" not in fields


def test_all_who_have_the_key_make_the_same_cookie_and_nobody_else() -> None:
    mine, same, other, pool = (
        CookieSessions("CLB", 60, key, name, ["a:1", "b:2"])
        for key, name in ((b"k", "app"), (b"k", "app"), (b"l", "app"), (b"k", "other"))
    )
    cookie = cookie_of(mine, "a:1")
    assert same.find(cookie) == "a:1"
    assert other.find(cookie) is None
    assert pool.find(cookie) is None
