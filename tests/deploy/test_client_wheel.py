"""What outsiders install: the wheel `asheard`, in an environment that has nothing else.

The environment gets grpcio and protobuf, with what they need, as links to the files that are
installed here: no registry is asked, and whatever else the client imported would not be found.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest

from asheard import __version__
from asheard.main import OF_THE_SYSTEM
from asheard.v1 import fact_pb2, transcript_service_pb2_grpc
from cli.system import clean_environment
from tests.transcript.call_facts import short_call
from tests.transcript.running_server import running

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "asheard" / "pyproject.toml").read_text())["project"]

MODULES = {
    "__init__", "__main__", "client", "config", "errors", "main", "commands/__init__", "commands/calls",
    "commands/check_heard", "commands/connection", "commands/get", "commands/machine", "commands/show",
    "commands/watch", "timeline", "v1/__init__",
}  # fmt: skip
"""All that is written by hand. What is added here goes to everybody who reads transcripts."""


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, timeout=120)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("build")
    shutil.copytree(ROOT / "asheard", work / "asheard")  # a build leaves files beside its sources
    pip("wheel", "--no-index", "--no-deps", "--no-build-isolation", "-w", work, work / "asheard")
    [built] = work.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and what its metadata asks for."""
    venv = tmp_path_factory.mktemp("reader") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=60)
    pip("--python", venv / "bin" / "python", "install", "--no-index", "--no-deps", wheel)
    [packages] = venv.glob("lib/python*/site-packages")
    for name in required(PROJECT["dependencies"]):
        for file in distribution(name).files or ():
            if ".." not in file.parts:  # a command of theirs
                link = packages / file
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file.locate())
    return venv


def required(requirements: list[str]) -> Iterator[str]:
    """The distributions that are asked for, and what these ask for themselves."""
    for requirement in requirements:
        if "extra ==" not in requirement:
            [name] = re.findall(r"^[A-Za-z0-9._-]+", requirement)
            yield name
            yield from required(distribution(name).requires or [])


def run(environment: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [environment / "bin" / command[0], *command[1:]],
        env={**clean_environment(), **variables},
        cwd=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_wheel_holds_client_commands_and_stubs_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    ours = {name.removeprefix("asheard/") for name in names if name.startswith("asheard/")}
    stubs = {
        f"v1/{proto.stem}_{kind}.{suffix}"
        for proto in (ROOT / "proto" / "asheard" / "v1").glob("*.proto")
        for kind in ("pb2", "pb2_grpc")
        for suffix in ("py", "pyi")
    }
    assert ours == {f"{module}.py" for module in MODULES} | stubs | {"py.typed"}
    about = {name for name in names if not name.startswith("asheard/")}
    assert {name.partition("/")[0] for name in about} == {f"asheard-{__version__}.dist-info"}
    assert f"asheard-{__version__}.dist-info/licenses/LICENSE" in about
    assert (ROOT / "asheard" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_it_needs_grpc_and_protobuf_alone_as_new_as_its_stubs() -> None:
    needed = dict(re.split("(?=[<>=])", text, maxsplit=1) for text in PROJECT["dependencies"])
    assert set(needed) == {"grpcio", "protobuf"}
    generated = Path(fact_pb2.__file__).read_text()
    [protobuf] = re.findall(r"^# Protobuf Python Version: (\S+)$", generated, re.M)
    grpcio = transcript_service_pb2_grpc.GRPC_GENERATED_VERSION
    assert needed["protobuf"].startswith(f">={protobuf},<")
    assert needed["grpcio"].startswith(f">={grpcio},<")


def test_nothing_else_can_be_imported(environment: Path) -> None:
    listing = "import pkgutil, sys; print(*(m.name for m in pkgutil.iter_modules(sys.path[-1:])))"
    installed = run(environment, "python", "-I", "-c", listing)
    names = set(installed.stdout.split())
    assert {"asheard", "grpc"} <= names
    assert names <= {"asheard", "google", "grpc", "typing_extensions"}
    for system in ("cli", "gateway", "native", "numpy", "runtime", "session", "transcript"):
        result = run(environment, "python", "-I", "-c", f"import {system}")
        assert "ModuleNotFoundError" in result.stderr, system


def test_it_says_its_version(environment: Path) -> None:
    result = run(environment, "asheard", "--version")
    assert (result.returncode, result.stdout) == (0, f"asheard {__version__} (client)\n")
    assert run(environment, "python", "-m", "asheard", "--version").stdout == result.stdout


@pytest.mark.parametrize("command", OF_THE_SYSTEM)
def test_a_command_of_the_system_is_one_line_that_says_where_it_is(
    environment: Path, command: str
) -> None:
    result = run(environment, "asheard", command)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert f"{command!r} needs the system" in result.stderr


async def test_its_commands_read_from_a_running_service(environment: Path, tmp_path: Path) -> None:
    async with running(tmp_path / "facts.db", tokens=["secret"]) as client:
        await client.append(short_call("CA1", text="That will be $9.05."))
        service = {
            "ASHEARD_TRANSCRIPT_TARGET": f"127.0.0.1:{client.server.grpc.port}",
            "ASHEARD_API_TOKENS": "secret",
        }

        async def asheard(*arguments: str) -> subprocess.CompletedProcess[str]:
            return await asyncio.to_thread(run, environment, "asheard", *arguments, **service)

        got = await asheard("get", "CA1")
        assert got.returncode == 0, got.stderr
        assert "agent   That will be $9.05." in got.stdout
        assert (await asheard("watch", "CA1")).stdout.splitlines()[0] == got.stdout.splitlines()[1]
        assert "CA1" in (await asheard("calls")).stdout
        heard = await asheard("check-heard", "CA1", "nine dollars and five cents")
        assert (heard.returncode, heard.stdout) == (0, "heard, 100 % (in item_1)\n")
        unknown = await asheard("get", "CA404")
        assert (unknown.returncode, unknown.stderr) == (
            1,
            "asheard get: call_sid: there is no such call\n",
        )
