"""The Dockerfile, read and not built: no registry can be reached from a test.

docs/operations.md says what was tried by hand. Here: that all it copies is there, that what it
copies and installs is enough to import the services, and that it agrees with the manifests.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gateway.config import GatewayConfig
from session.config import SessionConfig
from tests.deploy.kustomize_subset import is_workload, pod_spec, render
from tests.deploy.settings import ENOUGH
from transcript.config import TranscriptConfig

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def instructions() -> list[tuple[str, str]]:
    """(instruction, its arguments), without comments, continued lines joined."""
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.split("\n"))]


def arguments(instruction: str) -> list[str]:
    return [rest for word, rest in instructions() if word == instruction]


def copied() -> list[str]:
    """What is copied out of the repository."""
    return [
        source
        for rest in arguments("COPY")
        if not rest.startswith("--from=")
        for source in rest.split()[:-1]
    ]


def pins(lock: str) -> dict[str, str]:
    """Versions by distribution; one that depends on the platform has them all."""
    versions: dict[str, str] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / lock).read_text(), re.M):
        versions[name] = f"{versions[name]} {version}" if name in versions else version
    return versions


def distribution(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()


def test_all_that_is_copied_exists_and_is_let_through() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    let_through = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert "*" in ignored, "what is not named stays out: the store, .git, a .env"
    assert let_through == set(copied())
    for source in copied():
        assert (ROOT / source).exists(), source


def test_the_linter_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    result = subprocess.run(
        [hadolint, ROOT / "deploy" / "Dockerfile"], capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stdout) == (0, "")


def test_the_base_is_pinned_and_is_the_python_of_the_checks() -> None:
    bases = {rest.split()[0] for rest in arguments("FROM")}
    [base] = bases
    pinned = re.fullmatch(r"python:(\d+\.\d+)\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", base)
    assert pinned, base
    assert pinned[1] == PROJECT["tool"]["mypy"]["python_version"]


def test_it_runs_the_command_as_nobody_in_particular_and_without_a_shell() -> None:
    [entrypoint] = arguments("ENTRYPOINT")
    [command] = json.loads(entrypoint)
    assert command in PROJECT["project"]["scripts"]
    assert all(rest.startswith("[") for rest in arguments("CMD"))
    [user] = arguments("USER")
    uid, _, gid = user.partition(":")
    for workload in filter(is_workload, render(ROOT / "deploy" / "k8s" / "base")):
        security = pod_spec(workload)["securityContext"]
        assert (security["runAsUser"], security["runAsGroup"]) == (int(uid), int(gid))
    assert int(uid) > 0


def test_it_exposes_the_ports_that_the_services_listen_at() -> None:
    gateway = GatewayConfig.from_env({"ASHEARD_TWILIO_VALIDATE": "off"})
    session = SessionConfig.from_env(ENOUGH[SessionConfig])
    transcript = TranscriptConfig.from_env({})
    [exposed] = arguments("EXPOSE")
    assert {int(port) for port in exposed.split()} == {
        gateway.listen.port,
        gateway.admin.port,
        session.listen.port,
        session.admin.port,
        transcript.listen.port,
        transcript.ingest.port,
        transcript.admin.port,
        transcript.viewer.port,
    }


def test_it_installs_what_the_tests_ran_with_and_nothing_else() -> None:
    assert any(
        "--require-hashes" in rest and "-r requirements-runtime.lock" in rest
        for rest in arguments("RUN")
    )
    runtime, everything = pins("requirements-runtime.lock"), pins("requirements.lock")
    assert runtime == {name: everything.get(name) for name in runtime}
    wanted = {distribution(requirement) for requirement in PROJECT["project"]["dependencies"]}
    assert wanted <= set(runtime)
    tools = {distribution(requirement) for requirement in PROJECT["dependency-groups"]["dev"]}
    assert not tools & set(runtime), "make lock writes both lock files"


PROBE = """
import sys
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions
from importlib.util import find_spec

image, checkout, service, *installed = sys.argv[1:]
owners = packages_distributions()


class OnlyTheImage(PathFinder):
    # Does not find what is installed here for the tests alone.
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        distributions = owners.get(name.partition(".")[0], [])
        names = {name.lower().replace("_", "-") for name in distributions}
        if names and not names & {*installed, "asheard", "asheard-system"}:
            return None
        return super().find_spec(name, path, target)


sys.path = [image] + [path for path in sys.path if path != checkout]
sys.meta_path = [
    OnlyTheImage if finder is PathFinder else finder
    for finder in sys.meta_path
    if "editable" not in repr(finder)
]
if find_spec("pytest") or find_spec("simulators"):
    sys.exit("this probe hides nothing")
__import__(f"cli.services.{service}")
"""


@pytest.mark.parametrize("service", ["gateway", "session", "transcript"])
def test_a_service_needs_nothing_that_the_image_lacks(service: str, tmp_path: Path) -> None:
    for source in copied():
        if (ROOT / source).is_dir():
            (tmp_path / source).symlink_to(ROOT / source)
    installed = set(pins("requirements-runtime.lock")) - {"setuptools"}
    result = subprocess.run(
        [sys.executable, "-P", "-c", PROBE, str(tmp_path), str(ROOT), service, *installed],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
