"""YAML in, plain values out: YAML 1.2's numbers, no key twice, one line where something is wrong."""

import re
from collections.abc import Hashable
from typing import Any

import yaml

from slackdlm.errors import ConfigError, one_line


class _Loader(yaml.SafeLoader):
    """YAML whose numbers are those of YAML 1.2, and whose keys are unique.

    By the library's 1.1 ``1e-5`` is text, ``1:30`` is 90, ``010`` is 8 and ``2024-01-01`` a date; here the first is
    a number and the others are texts.
    """

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, object]:
        mapping: dict[Hashable, object] = {}
        for key_node, value_node in node.value:
            is_text = isinstance(key_node, yaml.ScalarNode)
            key: Any = self.construct_object(key_node) if is_text else None
            if not is_text or key in mapping:
                what = (
                    f"duplicate key {one_line(str(key), longest=80)}"
                    if is_text
                    else "a key is no text"
                )
                raise yaml.MarkedYAMLError(problem=what, problem_mark=key_node.start_mark)
            mapping[key] = self.construct_object(value_node, deep=deep)
        return mapping

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge keys (``<<``) are not expanded: they can grow without bound."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in ("bool", "null")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^([-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)


def read_yaml(text: str) -> object:
    """Plain values of one YAML document.

    Raises:
        ConfigError: If the text is no YAML, a key is duplicated or no text; says where, on one line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        reason = error.problem or error.context or "it cannot be read"
        raise ConfigError(f"not valid YAML ({where}{one_line(reason)})") from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # The library's own constructors raise these on tags such as !!int with other text.
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(f"not valid YAML ({one_line(what)})") from error
