"""Who may read (unit)."""

from __future__ import annotations

import pytest

from transcript.access import Access, PermissionDenied, Unauthenticated, peer_host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_without_tokens_loopback_is_admitted(host: str) -> None:
    Access().admit(None, host)


@pytest.mark.parametrize("host", ["10.0.0.1", "203.0.113.9", "2001:db8::1", "::ffff:10.0.0.1", ""])
def test_without_tokens_nobody_else_is(host: str) -> None:
    with pytest.raises(PermissionDenied, match="ASHEARD_API_TOKENS"):
        Access().admit(None, host)
    with pytest.raises(PermissionDenied):
        Access().admit("Bearer anything", host)


@pytest.mark.parametrize("host", ["127.0.0.1", "203.0.113.9"])
def test_with_tokens_the_token_decides_wherever_it_comes_from(host: str) -> None:
    access = Access(["one", "two"])
    access.admit("Bearer one", host)
    access.admit("bearer two", host)
    for wrong in (None, "", "one", "Bearer", "Bearer on", "Bearer one two", "Basic one"):
        with pytest.raises(Unauthenticated):
            access.admit(wrong, host)


def test_a_refusal_does_not_repeat_the_token() -> None:
    with pytest.raises(Unauthenticated) as caught:
        Access(["one"]).admit("Bearer hunter2", "127.0.0.1")
    assert "hunter2" not in str(caught.value)


def test_a_pass_stands_for_its_token_and_does_not_show_it() -> None:
    access = Access(["one"])
    given = access.issue_pass("one")
    assert access.knows_pass(given)
    assert "one" not in given
    assert not access.knows_pass("one")
    assert not access.knows_pass("pässe")
    assert not Access(["two"]).knows_pass(given)


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
