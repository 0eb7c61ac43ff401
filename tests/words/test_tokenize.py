"""Text is split into words without losing a character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from words.tokenize import TextJoiner, Token, is_spoken, tokenize


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Your total is $9.05, okay?", ["Your", "total", "is", "$9.05,", "okay?"]),
        ("  two\n\nlines ", ["two", "lines"]),
        ("wait — what", ["wait", "—", "what"]),
        ("", []),
        (" \n\t", []),
        ("你好，世界", ["你", "好，", "世", "界"]),
        ("「東京」へ", ["「東", "京」", "へ"]),
        ("カタカナです", ["カタカナ", "で", "す"]),
        ("價格是3.50美元", ["價", "格", "是", "3.50", "美", "元"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
        ("مرحبا بالعالم!", ["مرحبا", "بالعالم!"]),
        ("nice 👩‍🔬 work", ["nice", "👩‍🔬", "work"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert [token.text for token in tokenize(text)] == words


@given(st.text())
def test_offsets_cover_all_but_white_space(text: str) -> None:
    tokens = tokenize(text)
    assert all(text[t.char_start : t.char_end] == t.text for t in tokens)
    assert "".join(t.text for t in tokens) == "".join(text.split())
    ends = [0] + [t.char_end for t in tokens]
    assert all(t.char_start >= end for t, end in zip(tokens, ends, strict=False))


@given(st.text(alphabet="ab ,好。\n", max_size=40), st.data())
def test_deltas_give_the_words_of_the_whole(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    joiner = TextJoiner()
    settled: list[Token] = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        settled += joiner.add(text[start:end])
    assert joiner.text == text
    assert (*settled, *joiner.unsettled()) == tokenize(text)
    assert tuple(settled) == joiner.settled


def test_a_word_settles_when_white_space_follows() -> None:
    joiner = TextJoiner()
    assert joiner.add("choc") == ()
    assert joiner.add("olate") == ()
    assert [t.text for t in joiner.add(" ca")] == ["chocolate"]
    assert [t.text for t in joiner.unsettled()] == ["ca"]


@pytest.mark.parametrize("word", ["hello", "9", "$", "50%", "你", "a…"])
def test_spoken(word: str) -> None:
    assert is_spoken(word)


@pytest.mark.parametrize("word", ["—", "...", "😀", "“", "!?"])
def test_not_spoken(word: str) -> None:
    assert not is_spoken(word)
