"""Script files: what they mean, and the one error for each mistake."""

from __future__ import annotations

import re

import pytest

from runtime.errors import ConfigurationError
from simulators.realtime import script as agent
from simulators.script_file import agent_script, caller_script
from simulators.twilio import script as caller

CALLER = """
name: impatient
from: "+15550100007"
steps:
  - say: I want bagels and a soda.
  - say: Sorry for interrupting, do you also have coffee?
    when:
      agent_word: credit?
      line: That will be $9.05. Cash or credit? We also have a store discount you can apply now.
      plus_ms: 120
    timeout_ms: 9000
  - press: 12
    when: {agent_played_ms: 400}
  - {shift_timestamps_ms: -300, when: {elapsed_ms: 10}}
  - {omit_silence: true, when: {elapsed_ms: 10}}
end: {drop: true, when: {agent_silent_ms: 300}}
"""

AGENT = """
name: baker
speed: 2
transcription_delay_ms: 50
hearings:
  - {text: I want bagels., delay_ms: 10}
  - {failure: DeploymentNotFound}
fallback: One moment please, I will check that for you.
replies:
  - Yes, of course.
  - when: bagels
    parts:
      - say: Let me see.
      - {call: quote, arguments: '{"items": []}'}
    first_audio_ms: 10
    stall: {at_audio_ms: 100, for_ms: 200}
    overlap_items: true
  - {say: Goodbye., failure: {status: incomplete, code: content_filter}, drop: {times: 2}}
"""


def test_caller_script_is_read() -> None:
    line = "That will be $9.05. Cash or credit? We also have a store discount you can apply now."
    assert caller_script(CALLER, "c.yaml") == caller.CallerScript(
        name="impatient",
        from_number="+15550100007",
        steps=(
            caller.Step(caller.Say("I want bagels and a soda.")),
            caller.Step(
                caller.Say("Sorry for interrupting, do you also have coffee?"),
                caller.AgentWord(line, "credit?", plus_ms=120),
                timeout_ms=9000,
            ),
            caller.Step(caller.Press("12"), caller.AgentPlayed(400)),
            caller.Step(caller.ShiftTimestamps(-300), caller.Elapsed(10)),
            caller.Step(caller.OmitSilence(True), caller.Elapsed(10)),
        ),
        end=caller.Step(caller.Drop(), caller.AgentSilent(300)),
    )


def test_agent_script_is_read() -> None:
    assert agent_script(AGENT, "a.yaml") == agent.AgentScript(
        name="baker",
        speed=2.0,
        transcription_delay_ms=50,
        hearings=(
            agent.Hearing("I want bagels.", 10),
            agent.Hearing(failure="DeploymentNotFound"),
        ),
        fallback=agent.say("One moment please, I will check that for you."),
        replies=(
            agent.say("Yes, of course."),
            agent.Reply(
                (agent.Speak("Let me see."), agent.CallTool("quote", '{"items": []}')),
                when="bagels",
                first_audio_ms=10,
                stall=agent.Stall(100, 200),
                overlap_items=True,
            ),
            agent.Reply(
                (agent.Speak("Goodbye."),),
                failure=agent.Failure("incomplete", "content_filter"),
                drop=agent.Drop(times=2),
            ),
        ),
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("steps: [", "c.yaml, line 1: this is not YAML"),
        ("- say: x", "c.yaml: must be a mapping"),
        ("greeting: x", "c.yaml.greeting: is not known here"),
        ("steps: {}", "c.yaml.steps: must be a list"),
        ("steps: [{when: {elapsed_ms: 1}}]", "c.yaml.steps[0]: needs exactly one of say, press"),
        ("steps: [{say: Yes., press: 1}]", "c.yaml.steps[0]: needs exactly one of"),
        ("steps: [{say: 7}]", "c.yaml.steps[0].say: must be a text"),
        ("steps: [{press: 1x}]", "c.yaml.steps[0].press: must be keys"),
        ("steps: [{hang_up: soon}]", "c.yaml.steps[0].hang_up: must be true"),
        ("steps: [{say: Yes., whenever: 1}]", "c.yaml.steps[0].whenever: is not known here"),
        ("steps: [{say: Yes., when: {soon: 1}}]", "c.yaml.steps[0].when: needs one of"),
        ("steps: [{say: Yes., when: {elapsed_ms: -1}}]", "elapsed_ms: must be at least 0"),
        ("steps: [{say: Yes., when: {agent_word: x}}]", "c.yaml.steps[0].when.line: is missing"),
        (
            "steps: [{say: Yes., when: {agent_word: tea, line: No coffee.}}]",
            "c.yaml.steps[0].when.agent_word: occurrence 1 of 'tea' is not in the line",
        ),
        ("max_call_ms: soon", "c.yaml.max_call_ms: must be a whole number"),
    ],
)
def test_mistake_in_a_caller_script_is_named_by_its_key(text: str, error: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(error)):
        caller_script(text, "c.yaml")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("replies: [{when: x}]", "a.yaml.replies[0].parts: is missing"),
        ("replies: [{say: x, parts: []}]", "a.yaml.replies[0]: has both say and parts"),
        ("replies: [{parts: [{shout: x}]}]", "a.yaml.replies[0].parts[0]: needs say or call"),
        ("replies: [{say: x, speed: 0}]", "a.yaml.replies[0].speed: must be a number above 0"),
        ("replies: [{say: x, stall: {for_ms: 1}}]", "stall.at_audio_ms: is missing"),
        ("replies: [{say: x, failure: {status: bad}}]", "must be one of failed, incomplete"),
        ("names: alpha", "a.yaml.names: must be one of ga, beta"),
        ("replies: [{say: x, overlap_items: 1}]", "overlap_items: must be true or false"),
    ],
)
def test_mistake_in_an_agent_script_is_named_by_its_key(text: str, error: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(error)):
        agent_script(text, "a.yaml")
