"""A nonce is good for one call, once, for a minute, and only if we made it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.nonce import LIFETIME_S, NonceChecker, mint

NOW_S = 1_800_000_000
text = st.text(max_size=20)


def a_nonce(call_sid: str = "CA1", secret: str = "secret", random: bytes = b"r" * 12) -> str:
    return mint(secret, call_sid, now_s=NOW_S, random=random)


def test_a_nonce_is_good_once_and_on_any_replica_with_the_same_secret() -> None:
    checker = NonceChecker("secret")
    nonce = a_nonce()
    assert checker.fault(nonce, "CA1", now_s=NOW_S) is None
    assert checker.fault(nonce, "CA1", now_s=NOW_S) == "the nonce was used before"
    assert NonceChecker("secret").fault(nonce, "CA1", now_s=NOW_S + LIFETIME_S) is None


def test_it_expires() -> None:
    fault = NonceChecker("secret").fault(a_nonce(), "CA1", now_s=NOW_S + LIFETIME_S + 1)
    assert fault == "the nonce has expired"


def test_it_is_of_one_call_and_of_one_secret() -> None:
    wrong = "the nonce is not ours, or of another call"
    assert NonceChecker("secret").fault(a_nonce(), "CA2", now_s=NOW_S) == wrong
    assert NonceChecker("other").fault(a_nonce(), "CA1", now_s=NOW_S) == wrong
    assert NonceChecker("secret").fault("", "CA1", now_s=NOW_S) == "the nonce is missing"


@given(nonce=text, call_sid=text)
def test_no_made_up_text_is_a_nonce_and_none_is_an_exception(nonce: str, call_sid: str) -> None:
    assert NonceChecker("secret").fault(nonce, call_sid, now_s=NOW_S) is not None


@given(call_sid=text, random=st.binary(min_size=12, max_size=12), data=st.data())
def test_a_changed_nonce_is_none(call_sid: str, random: bytes, data: st.DataObject) -> None:
    nonce = a_nonce(call_sid, random=random)
    place = data.draw(st.integers(0, len(nonce) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda c: c != nonce[place]))
    changed = nonce[:place] + other + nonce[place + 1 :]
    assert NonceChecker("secret").fault(changed, call_sid, now_s=NOW_S) is not None


def test_used_nonces_are_remembered_only_until_they_expire() -> None:
    checker = NonceChecker("secret")
    for second in range(1000):
        nonce = mint("secret", "CA1", now_s=NOW_S + second, random=b"r" * 12)
        assert checker.fault(nonce, "CA1", now_s=NOW_S + second) is None
    assert checker.remembered <= LIFETIME_S + 2
