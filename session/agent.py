"""The agent file: what an agent is, and the ``session.update`` that becomes of it.

YAML, validated once at the start of the process. A fault is one
:class:`~runtime.errors.ConfigurationError` that names the file, the key and the fix.
"""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta

from runtime.errors import ConfigurationError
from runtime.url import split_url
from session.bounded_yaml import TooMuch, read_yaml

BAKERY = Path(__file__).parent / "agents" / "bakery.yaml"
"""The bundled agent."""

MAX_FILE_BYTES = 256 * 1024
"""Of an agent file: fifty pages of instructions. The model's context holds a quarter of a
megabyte."""

_Text = Annotated[str, Meta(min_length=1)]


class ServerVad(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="server_vad"):
    """Voice detection by level. The defaults are ours: the API's depend on the model."""

    threshold: Annotated[float, Meta(ge=0, le=1)] = 0.5
    prefix_padding_ms: Annotated[int, Meta(ge=0, le=10_000)] = 300
    silence_duration_ms: Annotated[int, Meta(ge=0, le=10_000)] = 500
    create_response: bool = True
    interrupt_response: bool = True
    """False: the caller cannot cut the agent off."""
    idle_timeout_ms: Annotated[int, Meta(ge=0)] | None = None
    """How long after the agent's last word the model speaks up by itself. None: never."""


class SemanticVad(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="semantic_vad"):
    """Voice detection by a model that judges whether the caller has finished."""

    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool = True
    interrupt_response: bool = True


TurnDetection = ServerVad | SemanticVad


class Transcription(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the caller's words are transcribed."""

    model: _Text
    language: _Text | None = None
    """ISO 639-1 of what the caller speaks. None: the model finds out."""
    prompt: str | None = None


class WhileWaiting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the caller is told once while a function is at work and nobody is heard."""

    after_s: Annotated[float, Meta(ge=1, le=300)] = 4.0
    """Of silence. People ask "are you still there?" after some five seconds; most functions have
    answered by four."""
    say: _Text | None = None
    """A line, word for word, in the language that the agent speaks."""
    instruct: _Text | None = None
    """An instruction to the model, in place of a line. None, and no line either: ours."""


_NoticeText = Annotated[str, Meta(min_length=1, max_length=400)]


class SpokenNotice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sentence in the agent file's own words, to be said without the model."""

    text: _NoticeText
    audio: _Text | None = None
    """File with its recording; a relative path begins at the agent file. None: an engine speaks it
    when the worker starts."""


class Notices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is said without the model; None: what is shipped. The keys are those of
    :class:`session.notices.Notice`."""

    hold: _NoticeText | SpokenNotice | None = None
    sorry: _NoticeText | SpokenNotice | None = None
    goodbye: _NoticeText | SpokenNotice | None = None


class Tool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A function that the model may call."""

    name: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
    description: str
    url: _Text
    """http or https: POST of the arguments as JSON; the answer's body goes to the model."""
    parameters: dict[str, Any] = msgspec.field(
        default_factory=lambda: {"type": "object", "properties": {}}
    )
    """JSON schema of the arguments."""
    timeout_s: Annotated[float, Meta(gt=0, le=300)] = 5.0
    """The conversation goes on meanwhile. Hardly a caller waits for five minutes."""
    while_waiting: WhileWaiting | None = None
    """None: the agent's."""
    cancel_on_barge_in: bool = False
    """Give the call up once the caller begins to speak while it is under way."""


class Agent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that one agent is."""

    name: _Text
    instructions: _Text
    greeting: str | None = None
    """What to say first. None: the caller speaks first."""
    voice: _Text = "marin"
    model: str | None = None
    """None: ``ASHEARD_REALTIME_MODEL``."""
    language: _Text = "en"
    """BCP 47; of what the agent speaks."""
    turn_detection: TurnDetection = ServerVad()
    transcription: Transcription | None = Transcription(model="gpt-4o-transcribe")
    """None: the caller's words are not transcribed."""
    when_cut_by_noise: Literal["continue", "wait"] = "continue"
    """What follows when a sound that was no turn of the caller's cut the agent off: it goes on from
    what was heard, or leaves it to the caller to speak."""
    tools: list[Tool] = []
    while_waiting: WhileWaiting = WhileWaiting()
    """For every tool that has none of its own."""
    notices: Notices = Notices()

    @property
    def prefix_padding_ms(self) -> int:
        """How far before the onset of speech the model's ``audio_start_ms`` lies."""
        vad = self.turn_detection
        return vad.prefix_padding_ms if isinstance(vad, ServerVad) else 0

    @property
    def trailing_silence_ms(self) -> int:
        """How far after the end of speech the model's ``audio_end_ms`` lies."""
        vad = self.turn_detection
        return vad.silence_duration_ms if isinstance(vad, ServerVad) else 0


def load_agent(path: Path | None) -> Agent:
    """Read and validate an agent file.

    Args:
        path: None for the bundled bakery.

    Raises:
        ConfigurationError: It cannot be read, is not YAML, or a key is wrong.
    """
    path = path or BAKERY
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ConfigurationError(
                f"agent file {path}: larger than {MAX_FILE_BYTES // 1024} KiB; shorten it"
            )
        text = data.decode()
    except OSError as error:
        raise ConfigurationError(
            f"agent file {path}: {error.strerror}; give a readable file in ASHEARD_AGENT"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"agent file {path}: not UTF-8") from error
    return parse_agent(text, name=str(path))


def parse_agent(text: str, *, name: str) -> Agent:
    """Validate the text of an agent file; ``name`` is for the error."""
    try:
        raw = read_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        problem = " ".join(str(problem).split())
        raise ConfigurationError(f"agent file {name}: not YAML{where}: {problem}") from error
    except TooMuch as error:
        raise ConfigurationError(f"agent file {name}: {error}") from error
    except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        # What PyYAML raises for a date in a thirteenth month, a number of 5,000 digits, `!!int _`,
        # a tag on the wrong kind of value.
        raise ConfigurationError(
            f"agent file {name}: a value cannot be read; put it in quotes if it is text"
        ) from error
    if not isinstance(raw, dict):
        raise ConfigurationError(f"agent file {name}: give keys and values, such as `name: bakery`")
    try:
        agent = msgspec.convert(raw, Agent)
    except msgspec.ValidationError as error:
        fault = " ".join(str(error).split())  # a key may have line breaks in it
        raise ConfigurationError(f"agent file {name}: {_explain(fault, raw)}") from error
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"agent file {name}: {_SURROGATE}") from error
    for key, fault in _faults(agent):
        raise ConfigurationError(f"agent file {name}: {key}: {fault}")
    texts = [agent.name, agent.greeting, agent.model, session_update(agent)]
    try:
        json.dumps(texts, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"agent file {name}: {_SURROGATE}") from error
    return agent


_SURROGATE = "an escape in it is half of a character (a surrogate); write the character itself"


def session_update(agent: Agent) -> dict[str, Any]:
    """The ``session`` of ``session.update``: nothing we rely on is left to defaults.

    The model is not in it: it is chosen by the socket's URL.
    """
    session: dict[str, Any] = {
        "type": "realtime",
        "output_modalities": ["audio"],
        "instructions": agent.instructions,
        "audio": {
            "input": {
                "format": {"type": "audio/pcmu"},
                "turn_detection": _turn_detection(agent.turn_detection),
                "transcription": (
                    None
                    if agent.transcription is None
                    else msgspec.to_builtins(agent.transcription)
                ),
            },
            "output": {"format": {"type": "audio/pcmu"}, "voice": agent.voice},
        },
        "tools": [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
            }
            for tool in agent.tools
        ],
        "tool_choice": "auto",
    }
    return session


def greeting_instructions(agent: Agent) -> str | None:
    """Instructions of the first response; None when the caller speaks first.

    A response's instructions stand in place of the session's, so these hold both.
    """
    if not agent.greeting:
        return None
    return f"{agent.instructions}\n\n{agent.greeting}"


def _turn_detection(vad: TurnDetection) -> dict[str, Any]:
    built: dict[str, Any] = msgspec.to_builtins(vad)
    return built


def _faults(agent: Agent) -> list[tuple[str, str]]:
    """What the types cannot say, as key and fault."""
    faults: list[tuple[str, str]] = []
    if not agent.turn_detection.create_response:
        faults.append(
            ("turn_detection.create_response", "must be true: the model takes its turns by itself")
        )
    words = [("while_waiting", agent.while_waiting)]
    words += [
        (f"tools[{index}].while_waiting", tool.while_waiting)
        for index, tool in enumerate(agent.tools)
        if tool.while_waiting is not None
    ]
    for key, word in words:
        if word.say is not None and word.instruct is not None:
            faults.append((key, "give `say` or `instruct`, not both"))
    names: set[str] = set()
    for index, tool in enumerate(agent.tools):
        if tool.name in names:
            faults.append((f"tools[{index}].name", f"{tool.name!r} is there twice"))
        names.add(tool.name)
        parts = split_url(tool.url)
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            faults.append((f"tools[{index}].url", "give an http:// or https:// URL"))
        if tool.cancel_on_barge_in and not agent.turn_detection.interrupt_response:
            fault = "there is no barge-in with `turn_detection.interrupt_response: false`"
            faults.append((f"tools[{index}].cancel_on_barge_in", fault))
        if tool.parameters.get("type") != "object":
            faults.append((f"tools[{index}].parameters", "give a JSON schema with `type: object`"))
        try:
            json.dumps(tool.parameters, allow_nan=False).encode()
        except (TypeError, ValueError):
            fault = "is no JSON: dates, binary data, sets, `.nan` and `.inf` are not; quote text"
            faults.append((f"tools[{index}].parameters", fault))
    return faults


_AT = re.compile(r"^(?P<fault>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>.*)`")
_MISSING = re.compile(r"Object missing required field `(?P<key>.*)`")
_TAG = re.compile(r"Invalid value '(?P<value>.*)'")


def _explain(message: str, raw: dict[str, Any]) -> str:
    """Say what msgspec found, as ``key: fault (fix)``."""
    matched = _AT.match(message)
    fault, path = (matched["fault"], matched["path"] or "") if matched else (message, "")
    path = path.removeprefix(".").replace("[...]", "[]")
    if unknown := _UNKNOWN.match(fault):
        key = unknown["key"]
        near = difflib.get_close_matches(key, _keys_at(path, raw), n=1, cutoff=0.5)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return f"{_join(path, key)}: unknown key{hint}"
    if missing := _MISSING.match(fault):
        return f"{_join(path, missing['key'])}: missing"
    if path.endswith("turn_detection.type") and _TAG.match(fault):
        return f"{path}: give server_vad or semantic_vad"
    hint = " (put it in quotes)" if "`str`, got `" in fault else ""
    return f"{path or 'the file'}: {fault[:1].lower()}{fault[1:]}{hint}"


def _keys_at(path: str, raw: dict[str, Any]) -> list[str]:
    """The keys that are known at a place of the file."""
    kind: type[msgspec.Struct] = Agent
    if path.endswith("while_waiting"):
        kind = WhileWaiting
    elif path.startswith("notices"):
        kind = Notices if path == "notices" else SpokenNotice
    elif path.startswith("tools"):
        kind = Tool
    elif path == "transcription":
        kind = Transcription
    elif path == "turn_detection":
        chosen = raw["turn_detection"].get("type")
        kind = SemanticVad if chosen == "semantic_vad" else ServerVad
    return list(kind.__struct_fields__)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
