"""How YAML is read: by libyaml where PyYAML was built with it, which takes a tenth of the time for the same values."""

from __future__ import annotations

import yaml

SafeLoader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


def error_line(error: yaml.YAMLError, text: str) -> int:
    """The line of `text`, from 1, that cannot be read. libyaml finds an early end behind the last line."""
    mark = getattr(error, "problem_mark", None)
    return min(mark.line + 1, max(len(text.splitlines()), 1)) if mark else 1
