"""The house rules that a program can look after: what may be imported, how large things may be."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(
    path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"
)
GENERATED = ROOT / "asheard" / "v1"
FILES = {
    package: sorted(
        path for path in (ROOT / package).rglob("*.py") if GENERATED not in path.parents
    )
    for package in (*PACKAGES, "tests")
}

MAX_FILE_LINES = 500
MAX_CLASS_LINES = 350
MAX_C_LINES = 450
"""Of what is compiled in a call's path."""


def name_of(path: Path) -> str:
    """A file's, as people write it."""
    return str(path.relative_to(ROOT))


@cache
def parsed(path: Path) -> ast.Module:
    """A file's syntax tree."""
    return ast.parse(path.read_text(), name_of(path))


def imported(path: Path) -> Iterator[str]:
    """All that a file imports, names within modules with their module before them."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name their package"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_private(part: str) -> bool:
    """Whether a name is its owner's affair."""
    return part.startswith("_") and not part.endswith("__")


@pytest.mark.parametrize("package", FILES)
def test_no_private_name_of_a_dependency_is_imported(package: str) -> None:
    private = [
        f"{name_of(path)}: {name}"
        for path in FILES[package]
        for name in imported(path)
        if name.partition(".")[0] not in FILES and any(map(is_private, name.split(".")))
    ]
    assert private == []


@pytest.mark.parametrize("package", FILES)
def test_a_file_can_be_held_in_mind(package: str) -> None:
    lines = {name_of(path): len(path.read_text().splitlines()) for path in FILES[package]}
    assert {p: n for p, n in lines.items() if n > MAX_FILE_LINES} == {}


@pytest.mark.parametrize("package", FILES)
def test_a_class_can_be_held_in_mind(package: str) -> None:
    lines = {
        f"{name_of(path)}:{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path in FILES[package]
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef)
    }
    assert {c: n for c, n in lines.items() if n > MAX_CLASS_LINES} == {}


def test_what_is_compiled_in_a_calls_path_is_short() -> None:
    lines = sum(len(path.read_text().splitlines()) for path in (ROOT / "native").glob("*.[ch]"))
    assert 0 < lines <= MAX_C_LINES


def test_packages_do_not_import_each_other_in_a_circle() -> None:
    leans_on = {
        package: {name.partition(".")[0] for path in FILES[package] for name in imported(path)}
        & set(PACKAGES) - {package}
        for package in PACKAGES
    }
    while free := {package for package, others in leans_on.items() if not others}:
        leans_on = {p: others - free for p, others in leans_on.items() if p not in free}
    assert leans_on == {}, "each of these leans on another of them"


def test_no_package_hides_one_of_pythons() -> None:
    assert set(PACKAGES).isdisjoint(sys.stdlib_module_names)


PAGES = sorted(
    page
    for pattern in ("*.md", "docs/*.md", "*/README.md")
    for page in ROOT.glob(pattern)
    if page.name != "CHANGELOG.md"
)
NAMED_FILE = re.compile(r"`((?:[a-z_0-9]+/)+[a-z_0-9]+\.(?:py|c|md|css|yaml|proto))`")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_names_only_files_that_are_there(page: Path) -> None:
    named = set(NAMED_FILE.findall(page.read_text()))
    missing = {n for n in named if not (ROOT / n).is_file() and not (page.parent / n).is_file()}
    assert missing == set()
