"""YAML without its traps: no tags of other languages, no repeated keys, and limits on everything.

A short file can expand to gigabytes through aliases of aliases, or nest deeper than Python's stack. Both are refused
while the file is parsed, before anything is built from it.
"""

import re
import textwrap
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode

from spectralgru.errors import InputError, shown

BYTES = 2**17  # params.yaml has about 10,000
DEPTH = 40
NODES = 20_000  # keys and values, including repetitions by aliases; parsing this many takes a second
DIGITS = 100  # Python refuses to print very long integers


def read_yaml(path: Path) -> Any:
    """The content of a file. Raises InputError if it is not strict YAML or a FIFO, OSError if it cannot be read."""
    if path.is_fifo():
        raise InputError(f"{path}: a FIFO, which might block forever; use a regular file")
    with path.open("rb") as file:
        return parse_yaml(file.read(BYTES + 1), str(path))


def parse_yaml(content: bytes | str, source: str) -> Any:
    """The value of a text. Raises InputError, with a message that begins with `source`."""
    if len(content) > BYTES:
        raise InputError(f"{source}: longer than {BYTES:,} bytes; shorten it")
    try:
        loader = _Loader(content if isinstance(content, str) else content.decode())
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InputError(
            f"{source}: not valid YAML: {place}{_line(error.problem or error.context)}"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: not valid YAML: {_line(error)}") from None


def _line(problem: object) -> str:
    return textwrap.shorten(str(problem), 200)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with limits. Dates stay text, and numbers are read as DVC reads and writes them."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.level = 0
        self.extents: dict[Node, tuple[int, int]] = {}  # nodes and levels composed so far

    def compose_node(self, parent: Node | None, index: Any) -> Node:
        """Compose a node, unless it nests too deep or repeats too much."""
        self.level += 1
        if self.level > DEPTH:
            self._refuse(f"nested more than {DEPTH} deep")
        alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        assert node is not None
        if not alias:
            self.extents[node] = self._extent(node)
        elif node not in self.extents:
            self._refuse("an alias that contains itself")
        nodes, levels = self.extents[node]
        if len(self.extents) > NODES or nodes > NODES:
            self._refuse(f"more than {NODES:,} values, repetitions by aliases counted")
        if self.level + levels > DEPTH:
            self._refuse(f"aliases nest more than {DEPTH} deep")
        self.level -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        """Compose a mapping, unless it repeats a key."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, ScalarNode):
                if (key.tag, key.value) in seen:
                    self._refuse(f"key {shown(key.value)} appears twice in a mapping; remove one", key)
                seen.add((key.tag, key.value))
        return node

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        """The value of a node; errors of PyYAML are reported with the node's place."""
        kind = node.tag.rpartition(":")[2]
        try:
            if kind in ("int", "float") and len(node.value) > DIGITS:
                raise ValueError
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            self._refuse(f"{shown(node.value)} is no {kind}", node)

    def _extent(self, node: Node) -> tuple[int, int]:
        below = [] if isinstance(node, ScalarNode) else node.value
        if isinstance(node, MappingNode):
            below = [child for pair in node.value for child in pair]
        extents = [self.extents[child] for child in below]
        return 1 + sum(nodes for nodes, _ in extents), max((1 + levels for _, levels in extents), default=0)

    def _refuse(self, problem: str, node: Node | None = None) -> NoReturn:
        mark = self.get_mark() if node is None else node.start_mark
        raise ConstructorError(None, None, problem, mark)


# PyYAML itself reads 010 as 8, 12:30 as 750, and 1e-05, which DVC writes, as text.
_NUMBERS = {
    "int": r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+)",
    "float": r"[-+]?(([0-9][0-9_]*\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+|[0-9][0-9_]*\.[0-9]*|\.[0-9]+|\.inf)|\.nan",
}
_Loader.yaml_implicit_resolvers = {
    first: [rule for rule in resolvers if rule[0].rpartition(":")[2] not in ("int", "float", "timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, _pattern in _NUMBERS.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(f"({_pattern})$"), list("-+.0123456789")
    )
