"""Who may read (unit)."""

from __future__ import annotations

import pytest

from asheard.config import Scope, api_tokens
from runtime.errors import ConfigurationError
from transcript.access import Access, PermissionDenied, Unauthenticated, peer_host


def access(*entries: str) -> Access:
    return Access(api_tokens({"ASHEARD_API_TOKENS": ", ".join(entries)}))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_without_tokens_loopback_is_admitted(host: str) -> None:
    Access().admit(None, host)
    Access().admit(None, host, Scope.DELETE)


@pytest.mark.parametrize("host", ["10.0.0.1", "203.0.113.9", "2001:db8::1", "::ffff:10.0.0.1", ""])
def test_without_tokens_nobody_else_is(host: str) -> None:
    with pytest.raises(PermissionDenied, match="ASHEARD_API_TOKENS"):
        Access().admit(None, host)
    with pytest.raises(PermissionDenied):
        Access().admit("Bearer anything", host)


@pytest.mark.parametrize("host", ["127.0.0.1", "203.0.113.9"])
def test_with_tokens_the_token_decides_wherever_it_comes_from(host: str) -> None:
    known = access("one", "two")
    known.admit("Bearer one", host)
    known.admit("bearer two", host)
    for wrong in (None, "", "one", "Bearer", "Bearer on", "Bearer one two", "Basic one"):
        with pytest.raises(Unauthenticated):
            known.admit(wrong, host)


def test_a_refusal_does_not_repeat_the_token() -> None:
    with pytest.raises(Unauthenticated) as caught:
        access("one").admit("Bearer hunter2", "127.0.0.1")
    assert "hunter2" not in str(caught.value)


def test_a_pass_stands_for_its_token_and_does_not_show_it() -> None:
    known = access("one")
    given = known.issue_pass("one")
    assert known.knows_pass(given)
    assert "one" not in given
    assert not known.knows_pass("one")
    assert not known.knows_pass("pässe")
    assert not access("two").knows_pass(given)


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:127.0.0.1:50321", "127.0.0.1"),
        ("ipv6:%5B::1%5D:50321", "::1"),
        ("ipv6:[::1]:50321", "::1"),
        ("unix:/tmp/socket", ""),
        ("", ""),
    ],
)
def test_the_host_of_a_peer(peer: str, host: str) -> None:
    assert peer_host(peer) == host


@pytest.mark.parametrize(
    ("entry", "token", "allowed"),
    [
        ("crm", "crm", {Scope.READ}),
        ("crm:read", "crm", {Scope.READ}),
        ("eraser:delete", "eraser", {Scope.DELETE}),
        ("office:read+delete", "office", {Scope.READ, Scope.DELETE}),
        ("boss:admin", "boss", set(Scope)),
        ("a:b:c:read", "a:b:c", {Scope.READ}),
        ("twice:read, twice:delete", "twice", {Scope.READ, Scope.DELETE}),
    ],
)
def test_a_token_may_do_what_its_scopes_say(entry: str, token: str, allowed: set[Scope]) -> None:
    known = access(entry)
    for scope in Scope:
        if scope in allowed:
            known.admit(f"Bearer {token}", "203.0.113.9", scope)
            continue
        with pytest.raises(PermissionDenied, match=f"lacks the scope `{scope}`") as caught:
            known.admit(f"Bearer {token}", "127.0.0.1", scope)
        assert token not in str(caught.value).replace("TOKEN", "")
    assert known.may_read(token) == (Scope.READ in allowed)
    assert known.knows_pass(known.issue_pass(token)) == (Scope.READ in allowed)
    with pytest.raises(Unauthenticated):
        known.admit(f"Bearer {entry.partition(',')[0]}x", "127.0.0.1")


@pytest.mark.parametrize(
    "entry", ["hunter2:write", "hunter2:", "hunter2:read+", "hunter2:Read", ":read", "hunter2:a:b"]
)
def test_a_scope_that_is_none_is_a_configuration_error(entry: str) -> None:
    with pytest.raises(ConfigurationError, match="ASHEARD_API_TOKENS.*entry 2") as caught:
        access("good:read", entry)
    assert "hunter2" not in str(caught.value)
