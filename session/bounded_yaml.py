"""YAML of bounded size: what a file of a few lines stands for is looked at before it is made."""

from __future__ import annotations

from typing import Any

import yaml

MAX_VALUES = 20_000
"""Keys and values of a file, aliases followed: nine lines of aliases can stand for a billion."""

MAX_DEPTH = 64
"""How deep they are nested; JSON schemas of functions come to ten or so."""


class TooMuch(Exception):
    """A file with more in it than any agent has; the text says what."""


class _Loader(yaml.SafeLoader):
    """PyYAML looks a thousand characters ahead at each bracket: 50,000 of them take it a minute."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        if self.flow_level >= MAX_DEPTH:
            raise TooMuch(f"nested deeper than {MAX_DEPTH} levels")
        super().fetch_flow_collection_start(TokenClass)


def read_yaml(text: str) -> Any:
    """The value of a YAML text, whose size was looked at before it was made.

    Raises:
        yaml.YAMLError: It is not YAML.
        TooMuch: There is too much in it, or it contains itself.
        ValueError: And others: a value is none of its kind.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _extent(node, {})
        return loader.construct_document(node)
    except RecursionError as error:
        raise TooMuch("nested too deeply") from error
    finally:
        loader.dispose()


def _extent(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """How many values a node has and how deep, aliases followed; each node is looked at once.

    Raises:
        TooMuch: More than `MAX_VALUES` or `MAX_DEPTH`, or it contains itself.
    """
    inside: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        inside = node.value
    elif isinstance(node, yaml.MappingNode):
        inside = [one for pair in node.value for one in pair]
    if not inside:
        return 1, 1
    if id(node) in known:
        extent = known[id(node)]
        if extent is None:
            raise TooMuch("an alias stands for what it is in")
        return extent
    known[id(node)] = None
    values, depth = 1, 1
    for one in inside:
        more, deeper = _extent(one, known)
        values, depth = values + more, max(depth, deeper + 1)
        if values > MAX_VALUES:
            raise TooMuch(f"more than {MAX_VALUES} values, aliases followed")
        if depth > MAX_DEPTH:
            raise TooMuch(f"nested deeper than {MAX_DEPTH} levels, aliases followed")
    known[id(node)] = values, depth
    return values, depth
