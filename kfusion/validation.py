"""What every setting must obey, whoever makes it: the command line, a JSON file or a program."""

import math
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints


class UserError(ValueError):
    """What a user gave breaks a rule: one sentence that names what, where, the rule and what arrived.

    Commands print it as one line and end with status 2. Any other error is a fault of kfusion and keeps its traceback.
    """


def reason(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def broken(path: Path, rule: str, found: object) -> UserError:
    """The one line on a file that breaks a rule, to be raised.

    Args:
        path: the file.
        rule: what it must be.
        found: what it is.
    """
    return UserError(" ".join(f"{path}: {rule}. Found: {found}".split()))


def require(rule: bool, name: str, text: str, received: object) -> None:
    """Raises the UserError that names a setting, its rule and what arrived, unless the rule holds."""
    if not rule:
        raise UserError(f"'{name}' must be {text}. Received: {received!r}")


def check_fields(config: Any) -> None:
    """Each field of a settings dataclass must be what its annotation says; floats must be finite.

    Raises:
        UserError: the first that is not.
    """
    hints = get_type_hints(type(config))
    for field in fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        if isinstance(value, tuple):  # Of a setting that takes one or several, the hint for several.
            hint = next((part for part in get_args(hint) if get_origin(part) is tuple), hint)
        if get_origin(hint) is Literal:
            require(value in get_args(hint), field.name, f"one of {', '.join(get_args(hint))}", value)
        elif get_origin(hint) is tuple:
            item = get_args(hint)[0]
            rule = isinstance(value, tuple) and all(type(part) is item for part in value)
            require(rule, field.name, f"a list of {item.__name__}", value)
        elif value is not None or type(None) not in get_args(hint):
            hint = next((part for part in get_args(hint) if part is not type(None)), hint)
            # A whole number will do for a float; True is an int to Python, but not to a person.
            rule = type(value) is hint or (hint is float and type(value) is int)
            require(rule, field.name, f"of type {hint.__name__}", value)
            require(not isinstance(value, float) or math.isfinite(value), field.name, "finite", value)
