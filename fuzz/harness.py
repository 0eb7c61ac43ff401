"""What all targets share: cases by number, findings with their repro, bounds of time and memory."""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType, TracebackType
from typing import Any, Protocol

from structlog.testing import capture_logs

MAX_FINDINGS = 20
"""A target with so many different ones ends: there is enough to do."""

CASE_CPU_S = 10.0
"""The most CPU that one case may take; the slowest good ones take a tenth. CPU, and not time, so that
a busy machine finds nothing."""

WARM_CASES = 200
"""After so many cases a process has what it keeps for good: caches, arenas, imported modules."""

MAX_GROWTH_BYTES = 150 * 1024 * 1024
"""Beyond what it had when it was warm. Allocators do not give all back; a leak of a kilobyte a case is
more than this after a few minutes."""


PROGRESS = "FUZZ_PROGRESS"
"""Names a file for the number of the case under way, should it be the end of the process."""


class Broken(AssertionError):
    """Something that must hold does not."""


class TooSlow(BaseException):
    """A case has used up its CPU. Not an `Exception`: nothing on the way may swallow it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that went wrong."""

    target: str
    seed: int
    case: int
    what: str
    """On one line; equal for what is most likely the same fault."""
    detail: str

    def __str__(self) -> str:
        return (
            f"FINDING {self.target}: {self.what}\n"
            f"  again: python -m fuzz --seed {self.seed} --case {self.case} {self.target}\n"
            + "".join(f"    {line}\n" for line in self.detail.splitlines()[-60:])
        )


@dataclass(slots=True)
class Report:
    """What became of a target."""

    target: str
    seed: int
    cases: int = 0
    inputs: int = 0
    """Events, facts, messages: whatever the target counts."""
    seconds: float = 0.0
    warm_bytes: int = 0
    end_bytes: int = 0
    notes: str = ""
    findings: list[Finding] = field(default_factory=list)

    def add(self, case: int, what: str, detail: str) -> None:
        """Note a finding, and print it, unless one like it is there already."""
        if any(finding.what == what for finding in self.findings):
            return
        finding = Finding(self.target, self.seed, case, what, detail)
        self.findings.append(finding)
        print(finding, flush=True)

    def __str__(self) -> str:
        growth = f", memory {self.warm_bytes >> 20} to {self.end_bytes >> 20} MB"
        return (
            f"{self.target}: {self.cases} cases, {self.inputs} inputs in {self.seconds:.0f} s "
            f"(seed {self.seed}){growth if self.end_bytes else ''}"
            f"{', ' + self.notes if self.notes else ''}: {len(self.findings)} findings"
        )


class Cases(Protocol):
    """A target whose cases are tried one after another in this process."""

    def __enter__(self) -> Cases: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def case(self, random: Random) -> int:
        """Try one; how many inputs it had.

        Raises:
            Exception: Anything is a finding; what is documented does not leave here.
        """
        ...


def run_cases(
    name: str, make: Callable[[], Cases], *, seed: int, seconds: float, case: int | None
) -> Report:
    """Try cases of a target for so long, or one of them alone."""
    report = Report(name, seed)
    began = time.monotonic()
    progress = os.environ.get(PROGRESS)
    with make() as cases, _logged() as logged, open(progress or os.devnull, "wb", 0) as under_way:
        number = 0 if case is None else case
        while len(report.findings) < MAX_FINDINGS:
            os.pwrite(under_way.fileno(), f"{number:12}".encode(), 0)
            with capture_logs() as logs:
                try:
                    with _cpu_bound():
                        report.inputs += cases.case(Random(f"{name}:{seed}:{number}"))
                except (Exception, TooSlow) as error:
                    report.add(number, _named(error), "".join(traceback.format_exception(error)))
            for entry in (*logs, *logged):
                if (fault := entry.get("exc_info")) is not None:
                    logged_error = fault if isinstance(fault, BaseException) else fault[1]
                    detail = "".join(traceback.format_exception(logged_error))
                    report.add(number, f"logged: {_named(logged_error)}", detail)
            logged.clear()
            report.cases += 1
            number += 1
            if report.cases == WARM_CASES:
                report.warm_bytes = memory_bytes()
            elif report.cases % WARM_CASES == 0:
                report.end_bytes = memory_bytes()
                if report.end_bytes > report.warm_bytes + MAX_GROWTH_BYTES:
                    sizes = f"{report.warm_bytes >> 20} to {report.end_bytes >> 20} MB"
                    report.add(number, "memory grows", sizes)
                    report.warm_bytes = report.end_bytes
            if case is not None or time.monotonic() - began >= seconds:
                break
    report.seconds = time.monotonic() - began
    return report


def memory_bytes(process: int | str = "self") -> int:
    """Resident memory."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@contextmanager
def _cpu_bound() -> Iterator[None]:
    def too_slow(_signal: int, _frame: FrameType | None) -> None:
        raise TooSlow(f"more than {CASE_CPU_S:g} s of CPU; threads:\n{_threads()}")

    before = signal.signal(signal.SIGVTALRM, too_slow)
    signal.setitimer(signal.ITIMER_VIRTUAL, CASE_CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _threads() -> str:
    """Where the threads are: the slow one may not be ours."""
    stacks = (
        "".join(traceback.format_stack(frame)[-12:]) for frame in sys._current_frames().values()
    )
    return "\n".join(stacks)


class _Logged(logging.Handler):
    """What libraries log as errors: asyncio and gRPC catch what our code raises in theirs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.entries: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        fault = record.exc_info if record.exc_info and record.exc_info[1] else None
        self.entries.append({"exc_info": fault or Broken(record.getMessage()[:300])})


@contextmanager
def _logged() -> Iterator[list[dict[str, Any]]]:
    handler = _Logged()
    logging.getLogger().addHandler(handler)
    try:
        yield handler.entries
    finally:
        logging.getLogger().removeHandler(handler)


def _named(error: BaseException) -> str:
    """A fault on one line: what and where, in the innermost frame of our own code."""
    frames = traceback.extract_tb(error.__traceback__)
    here = f"{Path(__file__).parents[1]}/"
    own = [f for f in frames if f.filename.startswith(here) and "/.venv/" not in f.filename]
    where = own[-1] if own else (frames[-1] if frames else None)
    text = str(error).splitlines()[0][:200] if str(error) else ""
    place = f" in {where.filename.removeprefix(here)}:{where.lineno}" if where else ""
    return f"{type(error).__name__}{place}: {text}"


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)
