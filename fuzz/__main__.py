"""``python -m fuzz``: see the package."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import SystemRandom

from fuzz import agent, facts, gateway, halves, model
from fuzz.harness import PROGRESS, Finding, Report, run_cases

Run = Callable[..., Report]

TARGETS: dict[str, Run] = {
    "gateway": gateway.run,
    "native": lambda **how: run_cases("native", halves.Halves, **how),
    "model": lambda **how: run_cases("model", model.Model, **how),
    "facts": lambda **how: run_cases("facts", facts.Facts, **how),
    "agent": lambda **how: run_cases("agent", agent.Agents, **how),
}

ALONE = {"gateway"}
"""Targets with several processes of their own, which measure time."""


def main(arguments: list[str] | None = None) -> int:
    """Run targets; the exit status: 1 when anything was found."""
    parser = argparse.ArgumentParser(
        prog="python -m fuzz", description="Odd input, by the million."
    )
    parser.add_argument("targets", nargs="*", metavar="target", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=60, help="for each target (60)")
    parser.add_argument("--seed", type=int, help="of all cases; one is chosen and printed")
    parser.add_argument("--case", type=int, help="one case alone")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time (1)")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if unknown := set(given.targets) - set(TARGETS):
        parser.error(
            f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}"
        )
    seed = SystemRandom().randrange(10**6) if given.seed is None else given.seed
    targets = given.targets or list(TARGETS)
    if given.inside:
        report: Report = TARGETS[targets[0]](seed=seed, seconds=given.seconds, case=given.case)
        print(report, flush=True)
        return 1 if report.findings else 0
    began = time.monotonic()
    runs = [_Apart(target, given.seconds, seed, given.case) for target in targets]
    status: int = max((run() for run in runs if run.target in ALONE), default=0)
    with ThreadPoolExecutor(max(1, given.jobs)) as pool:
        statuses = pool.map(lambda run: run(), (run for run in runs if run.target not in ALONE))
        status = max([status, *statuses])
    took_s = time.monotonic() - began
    found = "nothing found" if not status else "there are findings, above"
    print(f"fuzz: {len(targets)} targets in {took_s:.0f} s, seed {seed}: {found}", flush=True)
    return status


class _Apart:
    """A target in a process of its own: what kills it is a finding too."""

    def __init__(self, target: str, seconds: float, seed: int, case: int | None) -> None:
        self.target = target
        self._seed = seed
        self._command = [sys.executable, "-X", "faulthandler", "-m", "fuzz", "--inside", target]
        self._command += ["--seconds", str(seconds), "--seed", str(seed)]
        if case is not None:
            self._command += ["--case", str(case)]

    def __call__(self) -> int:
        """Run it; 1 when something was found."""
        with tempfile.NamedTemporaryFile(prefix="fuzz-", suffix=".case") as file:
            environment = {"GRPC_ENABLE_FORK_SUPPORT": "0", **os.environ, PROGRESS: file.name}
            status = subprocess.run(self._command, env=environment, check=False).returncode
            if status in (0, 1):
                return status
            case = int(Path(file.name).read_text().strip() or 0)
        what = f"the process ended with status {status}"
        print(Finding(self.target, self._seed, case, what, ""), flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
