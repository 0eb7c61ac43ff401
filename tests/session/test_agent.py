"""The agent file: what becomes of it, and what its author is told of a fault."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest

from runtime.errors import ConfigurationError
from session.agent import (
    SpokenNotice,
    WhileWaiting,
    greeting_instructions,
    load_agent,
    parse_agent,
    session_update,
)

MINIMAL = "name: x\ninstructions: Be brief.\n"


def test_the_bundled_bakery_is_valid_and_greets() -> None:
    agent = load_agent(None)
    assert agent.name == "bakery"
    instructions = greeting_instructions(agent)
    assert instructions is not None
    assert agent.instructions in instructions, "a response's instructions replace the session's"


def test_the_example_of_the_documentation_is_valid() -> None:
    page = (Path(__file__).parents[2] / "docs" / "agent.md").read_text()
    agent = parse_agent(page.partition("```yaml\n")[2].partition("```")[0], name="agent.md")
    assert agent.notices.hold is None
    assert isinstance(agent.notices.goodbye, SpokenNotice)
    assert agent.notices.goodbye.audio == "goodbye.wav"
    quote, courier = agent.tools
    assert quote.while_waiting is None
    assert not quote.cancel_on_barge_in
    assert courier.while_waiting == WhileWaiting(after_s=3, say="I am looking for a courier.")
    assert courier.cancel_on_barge_in
    assert agent.while_waiting.instruct == "Say in a few words that you are still checking."
    assert parse_agent(MINIMAL, name="x").while_waiting == WhileWaiting(after_s=4)
    assert parse_agent(MINIMAL, name="x").when_cut_by_noise == "continue"


def test_every_turn_detection_value_is_explicit() -> None:
    session = session_update(parse_agent(MINIMAL, name="x"))
    assert session["audio"]["input"]["turn_detection"] == {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 500,
        "create_response": True,
        "interrupt_response": True,
        "idle_timeout_ms": None,
    }
    semantic = parse_agent(MINIMAL + "turn_detection: {type: semantic_vad}", name="x")
    assert session_update(semantic)["audio"]["input"]["turn_detection"] == {
        "type": "semantic_vad",
        "eagerness": "auto",
        "create_response": True,
        "interrupt_response": True,
    }


def test_audio_passes_without_transcoding_both_ways() -> None:
    session = session_update(parse_agent(MINIMAL, name="x"))
    assert session["output_modalities"] == ["audio"]
    assert session["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    assert session["audio"]["output"]["format"] == {"type": "audio/pcmu"}
    assert session["audio"]["input"]["transcription"] == {"model": "gpt-4o-transcribe"}


def test_without_a_greeting_the_caller_speaks_first() -> None:
    assert greeting_instructions(parse_agent(MINIMAL, name="x")) is None


def test_transcription_can_be_off() -> None:
    session = session_update(parse_agent(MINIMAL + "transcription: null", name="x"))
    assert session["audio"]["input"]["transcription"] is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            MINIMAL + "turn_detection: {type: server_vad, silence_ms: 3}",
            "turn_detection.silence_ms: unknown key (did you mean silence_duration_ms?)",
        ),
        (MINIMAL + "turn_detection: {threshold: 1}", "turn_detection.type: missing"),
        (
            MINIMAL + "turn_detection: {type: vad}",
            "turn_detection.type: give server_vad or semantic_vad",
        ),
        (
            MINIMAL + "turn_detection: {type: server_vad, threshold: 3}",
            "turn_detection.threshold: expected `float` <= 1.0",
        ),
        (
            MINIMAL + "turn_detection: {type: server_vad, create_response: false}",
            "turn_detection.create_response: must be true: the model takes its turns by itself",
        ),
        ("name: x\ninstrutions: y", "instrutions: unknown key (did you mean instructions?)"),
        ("name: x", "instructions: missing"),
        ("- 1", "give keys and values, such as `name: bakery`"),
        ("", "give keys and values, such as `name: bakery`"),
        ("a: 1\nb: [", "not YAML at line 2: expected the node content, but found '<stream end>'"),
        (MINIMAL + "language: no", "language: expected `str`, got `bool` (put it in quotes)"),
        (
            MINIMAL + "tools: [{name: f, description: d, url: 127.0.0.1/f}]",
            "tools[0].url: give an http:// or https:// URL",
        ),
        (
            MINIMAL + "tools: [{name: f, description: d, url: 'http://[a/f'}]",
            "tools[0].url: give an http:// or https:// URL",
        ),
        (
            MINIMAL + "tools: [{name: f, description: d, url: 'http://a:99999/f'}]",
            "tools[0].url: give an http:// or https:// URL",
        ),
        (
            MINIMAL
            + "tools: [{name: f, description: d, url: 'http://a'}, "
            + "{name: f, description: d, url: 'http://b'}]",
            "tools[1].name: 'f' is there twice",
        ),
        (
            MINIMAL + "tools: [{name: f, description: d, url: 'http://a', timeout: 3}]",
            "tools[0].timeout: unknown key (did you mean timeout_s?)",
        ),
        (MINIMAL + "transcription: {modl: x}", "transcription.modl: unknown key"),
        (
            MINIMAL + "when_cut_by_noise: stop",
            "when_cut_by_noise: invalid enum value 'stop'",
        ),
        (
            MINIMAL + "while_waiting: {after: 3}",
            "while_waiting.after: unknown key (did you mean after_s?)",
        ),
        (
            MINIMAL + "while_waiting: {say: x, instruct: y}",
            "while_waiting: give `say` or `instruct`, not both",
        ),
        (
            MINIMAL
            + "tools: [{name: f, description: d, url: 'http://a', "
            + "while_waiting: {says: x}}]",
            "tools[0].while_waiting.says: unknown key (did you mean say?)",
        ),
        (
            MINIMAL
            + "tools: [{name: f, description: d, url: 'http://a', "
            + "while_waiting: {say: x, instruct: y}}]",
            "tools[0].while_waiting: give `say` or `instruct`, not both",
        ),
        (
            MINIMAL
            + "turn_detection: {type: semantic_vad, interrupt_response: false}\n"
            + "tools: [{name: f, description: d, url: 'http://a', cancel_on_barge_in: true}]",
            "tools[0].cancel_on_barge_in: there is no barge-in",
        ),
        (
            MINIMAL + "tools: [{name: f, description: d, url: 'http://a', timeout_s: 301}]",
            "tools[0].timeout_s: expected `float` <= 300.0",
        ),
    ],
)
def test_a_fault_is_one_message_that_names_the_key(text: str, fault: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_agent(text, name="x.yaml")
    assert str(caught.value).startswith(f"agent file x.yaml: {fault}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml: No such file"):
        load_agent(tmp_path / "nowhere.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match=r"binary\.yaml: not UTF-8"):
        load_agent(binary)


TOOL = MINIMAL + "tools: [{name: f, description: d, url: 'http://a', parameters: {type: object, x: "


def bomb(levels: int) -> str:
    """A few lines that stand for nine to the power of their number of values."""
    lines = ["a0: &a0 [lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    within = "\n".join(f"      {line}" for line in lines)
    return (
        MINIMAL + "tools:\n  - name: f\n    description: d\n    url: http://a\n"
        f"    parameters:\n      type: object\n{within}\n"
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (bomb(12), "more than 20000 values, aliases followed"),
        (MINIMAL + "greeting: &a [*a]", "an alias stands for what it is in"),
        (TOOL + "&a {b: *a}}}]", "an alias stands for what it is in"),
        (MINIMAL + "x: " + "[" * 100 + "]" * 100, "nested deeper than 64 levels"),
        (MINIMAL + "x: " + "[" * 50_000, "nested deeper than 64 levels"),
        (MINIMAL + "x:\n  " + "- " * 50_000, "nested too deeply"),
        (TOOL + "2001-13-99}}]", "a value cannot be read"),
        (TOOL + "2001-12-09}}]", "tools[0].parameters: is no JSON"),
        (TOOL + ".nan}}]", "tools[0].parameters: is no JSON"),
        (TOOL + "!!binary aGVsbG8=}}]", "tools[0].parameters: is no JSON"),
        (MINIMAL + "x: " + "9" * 5_000, "a value cannot be read"),
        (MINIMAL + "x: !!int _", "a value cannot be read"),
        (MINIMAL + 'greeting: "\\ud800"', "an escape in it is half of a character"),
        (MINIMAL + '"a\\nb": 1', "a b: unknown key"),
    ],
)
def test_what_no_agent_has_is_refused_at_once_and_in_little_memory(text: str, fault: str) -> None:
    began = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(ConfigurationError) as caught:
            parse_agent(text, name="x.yaml")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(f"agent file x.yaml: {fault}")
    assert "\n" not in str(caught.value)
    assert most < 100_000_000
    assert time.process_time() - began < 10


def test_aliases_as_people_use_them_are_followed() -> None:
    agent = parse_agent(TOOL + "&a {type: string}, y: *a}}]", name="x")
    assert agent.tools[0].parameters["y"] == {"type": "string"}


def test_a_file_larger_than_any_agent_is_not_read(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_text(MINIMAL + "# " + "x" * 300_000)
    with pytest.raises(ConfigurationError, match=r"large\.yaml: larger than 256 KiB"):
        load_agent(large)
