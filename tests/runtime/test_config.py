"""Configuration: a bad value is one clear error that names the variable; secrets stay out of it."""

from __future__ import annotations

import pytest

from gateway.config import GatewayConfig
from runtime.config import Address, LogConfig
from runtime.errors import ConfigurationError
from session.config import SessionConfig
from transcript.config import TranscriptConfig

OFF = {"ASHEARD_TWILIO_VALIDATE": "off"}
SECRET = "0123456789abcdef" * 4
TRUST = {"ASHEARD_INTERNAL_SECRET": SECRET}
LOCAL = {"ASHEARD_REALTIME_URL": "ws://127.0.0.1:9/v1/realtime", **TRUST}


def test_the_defaults_are_those_of_the_contract() -> None:
    gateway = GatewayConfig.from_env(OFF)
    assert gateway.listen == Address("0.0.0.0", 8080)
    assert gateway.admin == Address("0.0.0.0", 9101)
    assert gateway.session_targets == ("127.0.0.1:50061",)
    assert gateway.ingest_target == "127.0.0.1:50072"
    assert gateway.public_url is None

    session = SessionConfig.from_env({"OPENAI_API_KEY": "sk-x", **TRUST})
    assert session.listen == Address("0.0.0.0", 50061)
    assert session.admin == Address("0.0.0.0", 9103)
    assert session.realtime_url == "wss://api.openai.com/v1/realtime"
    assert session.realtime_model == "gpt-realtime-2.1"
    assert session.agent_path is None

    transcript = TranscriptConfig.from_env({})
    assert transcript.listen == Address("0.0.0.0", 50071)
    assert transcript.ingest == Address("127.0.0.1", 50072)
    assert transcript.viewer == Address("127.0.0.1", 8090)
    assert transcript.admin == Address("0.0.0.0", 9102)
    assert transcript.store == "sqlite:///asheard.db"
    assert transcript.api_tokens == ()


@pytest.mark.parametrize(
    ("service", "environment", "named"),
    [
        (GatewayConfig, {}, "TWILIO_AUTH_TOKEN"),
        (GatewayConfig, {**OFF, "ASHEARD_GATEWAY_LISTEN": "8080"}, "ASHEARD_GATEWAY_LISTEN"),
        (GatewayConfig, {**OFF, "ASHEARD_GATEWAY_LISTEN": "h:99999"}, "ASHEARD_GATEWAY_LISTEN"),
        (GatewayConfig, {"ASHEARD_TWILIO_VALIDATE": "no"}, "ASHEARD_TWILIO_VALIDATE"),
        (GatewayConfig, {**OFF, "ASHEARD_PUBLIC_URL": "voice.example.com"}, "ASHEARD_PUBLIC_URL"),
        (GatewayConfig, {**OFF, "ASHEARD_PUBLIC_URL": "https://h/?a=1"}, "ASHEARD_PUBLIC_URL"),
        (GatewayConfig, {**OFF, "ASHEARD_PUBLIC_URL": "https://[h"}, "ASHEARD_PUBLIC_URL"),
        (GatewayConfig, {**OFF, "ASHEARD_SESSION_TARGETS": "worker"}, "ASHEARD_SESSION_TARGETS"),
        (GatewayConfig, {**OFF, "ASHEARD_SESSION_TARGETS": ","}, "ASHEARD_SESSION_TARGETS"),
        (GatewayConfig, {**OFF, "ASHEARD_DRAIN_SECONDS": "-1"}, "ASHEARD_DRAIN_SECONDS"),
        (GatewayConfig, {**OFF, "ASHEARD_INGEST_TARGET": "transcript"}, "ASHEARD_INGEST_TARGET"),
        (SessionConfig, {}, "OPENAI_API_KEY"),
        (SessionConfig, {"ASHEARD_REALTIME_URL": "http://127.0.0.1/"}, "ASHEARD_REALTIME_URL"),
        (SessionConfig, {"ASHEARD_REALTIME_URL": "ws://[127.0.0.1/"}, "ASHEARD_REALTIME_URL"),
        (SessionConfig, {"ASHEARD_REALTIME_URL": "ws://127.0.0.1:0x9/"}, "ASHEARD_REALTIME_URL"),
        (SessionConfig, {**LOCAL, "ASHEARD_SESSION_MAX_CALLS": "0"}, "ASHEARD_SESSION_MAX_CALLS"),
        (SessionConfig, {**LOCAL, "ASHEARD_ALIGN": "yes"}, "ASHEARD_ALIGN"),
        (TranscriptConfig, {"ASHEARD_STORE": "mysql://u:secret@h/d"}, "ASHEARD_STORE"),
        (TranscriptConfig, {"ASHEARD_STORE": "sqlite:///"}, "ASHEARD_STORE"),
        (LogConfig, {"ASHEARD_LOG_LEVEL": "loud"}, "ASHEARD_LOG_LEVEL"),
    ],
)
def test_a_bad_value_is_an_error_that_names_its_variable(
    service: type[GatewayConfig], environment: dict[str, str], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=named) as error:
        service.from_env(environment)
    assert "secret" not in str(error.value)


def test_a_key_is_not_needed_when_the_model_is_on_loopback() -> None:
    assert SessionConfig.from_env(LOCAL).openai_api_key is None


def test_secrets_do_not_show_when_a_configuration_is_printed() -> None:
    session = SessionConfig.from_env({"OPENAI_API_KEY": "sk-hunter2", **TRUST})
    gateway = GatewayConfig.from_env({"TWILIO_AUTH_TOKEN": "tok-hunter2", **TRUST})
    transcript = TranscriptConfig.from_env({"ASHEARD_API_TOKENS": "a-hunter2, b-hunter2", **TRUST})
    assert [entry.token for entry in transcript.api_tokens] == ["a-hunter2", "b-hunter2"]
    printed = f"{session} {gateway} {transcript}"
    assert "hunter2" not in printed
    assert SECRET not in printed


def test_targets_may_be_a_list_or_a_dns_name() -> None:
    listed = GatewayConfig.from_env({**OFF, "ASHEARD_SESSION_TARGETS": "a:1, b:2"})
    named = GatewayConfig.from_env({**OFF, "ASHEARD_SESSION_TARGETS": "dns:///workers:50061"})
    assert listed.session_targets == ("a:1", "b:2")
    assert named.session_targets == ("dns:///workers:50061",)


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"ASHEARD_INTERNAL_SECRET": "short"}, "secret 1 has 5 characters"),
        ({"ASHEARD_INTERNAL_SECRET": f"{SECRET}\nshort"}, "secret 2 has 5 characters"),
        ({"ASHEARD_INTERNAL_SECRET": " \n "}, "holds no secret"),
        ({"ASHEARD_INTERNAL_SECRET": f"{SECRET} {SECRET}"}, "a blank"),
        ({"ASHEARD_INTERNAL_SECRET": f"{SECRET}é"}, "not ASCII"),
        ({"ASHEARD_INTERNAL_SECRET": f"{SECRET}\n" * 9}, "at most 8"),
        ({**TRUST, "ASHEARD_INTERNAL_SECRET_FILE": "/run/secret"}, "both set"),
        ({"ASHEARD_TLS_CERT": "c", "ASHEARD_TLS_KEY": "k"}, "ASHEARD_TLS_CA is not set"),
        ({"ASHEARD_TLS_CA": "c"}, "ASHEARD_TLS_CERT and ASHEARD_TLS_KEY are not set"),
    ],
)
@pytest.mark.parametrize("service", [GatewayConfig, SessionConfig, TranscriptConfig])
def test_trust_that_is_none_is_a_configuration_error(
    service: type[GatewayConfig], environment: dict[str, str], named: str
) -> None:
    least = {"ASHEARD_TWILIO_VALIDATE": "off", "OPENAI_API_KEY": "sk-x"}
    with pytest.raises(ConfigurationError, match=named) as error:
        service.from_env({**least, **environment})
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    ("service", "least", "name"),
    [
        (SessionConfig, {"OPENAI_API_KEY": "sk-x"}, "ASHEARD_SESSION_LISTEN"),
        (TranscriptConfig, {}, "ASHEARD_INGEST_LISTEN"),
    ],
)
def test_beyond_loopback_the_parts_must_prove_themselves(
    service: type[GatewayConfig], least: dict[str, str], name: str
) -> None:
    for beyond in ("0.0.0.0:7000", "[::]:7000", "10.0.0.7:7000", "worker.internal:7000"):
        with pytest.raises(ConfigurationError, match="openssl rand -hex 32") as error:
            service.from_env({**least, name: beyond})
        assert name in str(error.value)
        assert "\n" not in str(error.value)
        service.from_env({**least, name: beyond, **TRUST})
        service.from_env({**least, name: beyond, "ASHEARD_INTERNAL_SECRET_FILE": "/run/secret"})
        tls = {"ASHEARD_TLS_CERT": "c", "ASHEARD_TLS_KEY": "k", "ASHEARD_TLS_CA": "a"}
        service.from_env({**least, name: beyond, **tls})
    for here in ("127.0.0.1:7000", "[::1]:7000", "localhost:7000"):
        service.from_env({**least, name: here})


@pytest.mark.parametrize(
    ("service", "least"), [(GatewayConfig, OFF), (SessionConfig, LOCAL)], ids=["gateway", "session"]
)
def test_a_writer_that_knows_only_where_readers_go_is_told_so(
    service: type[GatewayConfig], least: dict[str, str]
) -> None:
    """It would deliver its facts to this machine, where nobody listens."""
    readers = {**least, "ASHEARD_TRANSCRIPT_TARGET": "transcripts.internal:50071"}
    with pytest.raises(ConfigurationError) as error:
        service.from_env(readers)
    assert "set ASHEARD_INGEST_TARGET=transcripts.internal:50072" in str(error.value)
    named = {**readers, "ASHEARD_INGEST_TARGET": "transcripts.internal:50072"}
    assert service.from_env(named).ingest_target == "transcripts.internal:50072"
    for here in ("127.0.0.1:6000", "[::1]:6000", "localhost:6000"):
        local = {**least, "ASHEARD_TRANSCRIPT_TARGET": here}
        assert service.from_env(local).ingest_target == "127.0.0.1:50072"
