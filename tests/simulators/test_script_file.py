"""Script files: what they mean, and the one error for each mistake."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from runtime.errors import ConfigurationError
from simulators.realtime import faults
from simulators.realtime import script as agent
from simulators.script_file import agent_script, caller_script
from simulators.twilio import script as caller

README = Path(__file__).parents[2] / "simulators" / "README.md"

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
  - {noise: {ms: 300}, when: {agent_played_ms: 900}}
  - {echo: {ms: 400}, when: {agent_played_ms: 900}}
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

FAULTS = """
vocabulary: [Half a dozen rolls.]
goes_on: true
names_in_errors: false
refusals:
  - {}
  - nth: 2
    times: 3
    for_ms: 6000
    code: rate_limit_exceeded
    message: Please try again in 6s.
    names_request: false
  - {nth: 6, answer: none}
  - {nth: 7, answer: response, after_ms: 7000, code: null}
turns: [null, {no_response: true}, {no_commit: true}, {response_after_ms: 4000}]
wordless: {no_commit: true}
results: [{overtaken: true}, null, {after_ms: 900}]
hearings: [{text: ""}]
events:
  - {type: response.done, nth: 2, times: all, lose: true}
  - type: conversation.item.added
    item: function_call_output
    after: response.created
    after_ms: 10
    twice: true
  - type: response.done
    set: {response.status_details: rate limited, response.output.0.id: null}
    remove: [response.usage]
    add: [{type: error, error: {code: null}}]
    frame: "{"
replies:
  - parts: []
  - {say: One moment., when_told: patient}
  - say: Yes, of course.
    text_only: true
    spoiled_times: 2
    rate_limits: {name: tokens, remaining: 0, reset_s: 8, at: created}
    events: [{type: response.created, lose: true}]
faults: {seed: 7, refuse: 0.1, fail: 0.05, missing_done: 0.02, slow_start_ms: 3000}
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
            caller.Step(caller.Noise(300), caller.AgentPlayed(900)),
            caller.Step(caller.Echo(400), caller.AgentPlayed(900)),
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


def test_faults_of_an_agent_script_are_read() -> None:
    assert agent_script(FAULTS, "a.yaml") == agent.AgentScript(
        vocabulary=("Half a dozen rolls.",),
        goes_on=True,
        names_in_errors=False,
        refusals=(
            faults.RequestFault(),
            faults.RequestFault(
                2,
                times=3,
                for_ms=6_000,
                code="rate_limit_exceeded",
                message="Please try again in 6s.",
                names_request=False,
            ),
            faults.RequestFault(6, answer="none"),
            faults.RequestFault(7, answer="response", after_ms=7_000, code=None),
        ),
        turns=(
            None,
            faults.TurnFault(no_response=True),
            faults.TurnFault(no_commit=True),
            faults.TurnFault(response_after_ms=4_000),
        ),
        wordless=faults.TurnFault(no_commit=True),
        results=(faults.ResultFault(overtaken=True), None, faults.ResultFault(after_ms=900)),
        hearings=(agent.Hearing(text=""),),
        events=(
            faults.EventFault("response.done", nth=2, times=None, lose=True),
            faults.EventFault(
                "conversation.item.added",
                "function_call_output",
                after="response.created",
                after_ms=10,
                twice=True,
            ),
            faults.EventFault(
                "response.done",
                set={"response.status_details": "rate limited", "response.output.0.id": None},
                remove=("response.usage",),
                add=({"type": "error", "error": {"code": None}},),
                frame="{",
            ),
        ),
        replies=(
            agent.Reply(()),
            agent.Reply((agent.Speak("One moment."),), when_told="patient"),
            agent.Reply(
                (agent.Speak("Yes, of course."),),
                text_only=True,
                spoiled_times=2,
                rate_limits=faults.RateLimits("tokens", 0, 8.0, "created"),
                events=(faults.EventFault("response.created", lose=True),),
            ),
        ),
        faults=faults.RandomFaults(
            seed=7, refuse=0.1, fail=0.05, missing_done=0.02, slow_start_ms=3_000
        ),
    )


def test_examples_of_the_readme_can_be_read() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)
    a_caller, an_agent, what_goes_wrong = blocks
    assert caller_script(a_caller, "caller.yaml").name == "impatient"
    assert agent_script(an_agent, "agent.yaml").name == "baker"
    script = agent_script(what_goes_wrong, "agent.yaml")
    left_out = {"fallback", "hearings", "name", "names", "speed", "stragglers"}
    assert {f.name for f in dataclasses.fields(script) if getattr(script, f.name)} >= {
        f.name for f in dataclasses.fields(script) if not f.name.endswith("_ms")
    } - left_out - {"names_in_errors"}
    assert not script.names_in_errors


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
        ("steps: [{noise: 300}]", "c.yaml.steps[0].noise: must be a mapping"),
        ("steps: [{noise: {}}]", "c.yaml.steps[0].noise.ms: is missing"),
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
        ("refusals: [{nth: 0}]", "a.yaml.refusals[0].nth: must be at least 1"),
        ("refusals: [{answer: maybe}]", "must be one of error, none, response"),
        ("turns: [{never: true}]", "a.yaml.turns[0].never: is not known here"),
        ("events: [{lose: true}]", "a.yaml.events[0].type: is missing"),
        ("events: [{type: x, times: many}]", "a.yaml.events[0].times: must be a whole number"),
        (
            "events: [{type: response.output_audio.delta, lose: true}]",
            "a.yaml.events[0]: response.output_audio.delta may be late, but not lost",
        ),
        ("faults: {refuse: 2}", "a.yaml.faults.refuse: must be a number from 0 to 1"),
        ("faults: {luck: 0.1}", "a.yaml.faults.luck: is not known here"),
        ("names: alpha", "a.yaml.names: must be one of ga, beta"),
        ("replies: [{say: x, overlap_items: 1}]", "overlap_items: must be true or false"),
    ],
)
def test_mistake_in_an_agent_script_is_named_by_its_key(text: str, error: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(error)):
        agent_script(text, "a.yaml")
