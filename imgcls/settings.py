"""Settings as fields of frozen dataclasses: what is stated there once becomes flag, help, check, JSON and table.

Knows no setting by name; those are in `config`.
"""

from __future__ import annotations

import math
import os
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, Field, field, fields
from typing import Any, Literal, TypeVar

from imgcls import habits
from imgcls.errors import UsageError, nearest

Config = TypeVar("Config")

MOST_LISTED = 8  # words up to which an error lists all
_KIND_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    known: Mapping[str, str] | None = None,
    auto: str = "",
    unset: str = "",
    metavar: str = "",
) -> Any:
    """Make a dataclass field that also carries its help sentence and bounds.

    Args:
        default: the value when nothing is given; `dataclasses.MISSING`: something must be.
        help: the sentence for `--help` and the README.
        low: smallest valid number.
        high: largest valid number.
        known: the valid names, as in `registry`.
        auto: what None means where it can also be typed, as "auto".
        unset: what None means where it cannot.
        metavar: what the value is called in `--help`; "" where its type says enough.
    """
    metadata = {"help": help, "low": low, "high": high, "known": known, "auto": auto, "unset": unset}
    return field(default=default, metadata=metadata | {"metavar": metavar})


def settings(config_type: type[Any]) -> Iterator[tuple[Field[Any], Any]]:
    """Yield each field of a config type with its resolved type."""
    hints = typing.get_type_hints(config_type)
    for item in fields(config_type):
        yield item, hints[item.name]


def flag(item: Field[Any]) -> str:
    """Return the command-line flag of a setting."""
    return "--" + item.name.replace("_", "-")


def is_required(item: Field[Any]) -> bool:
    """Tell whether a setting has no default."""
    return item.default is MISSING


def choices(hint: Any) -> tuple[str, ...]:
    """Return the words a setting of this type accepts, or an empty tuple."""
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return tuple(word for part in typing.get_args(hint) for word in choices(part))
    return ()


def bounds(low: float | None, high: float | None) -> str:
    """Say between which numbers a setting must lie; "" where it is free."""
    if low is None:
        return ""
    return f"{low:g} or more" if high is None else f"{low:g} to {high if isinstance(high, int) else f'{high:g}'}"


def help_text(item: Field[Any], hint: Any) -> str:
    """Return the help sentence with the default, the bounds and, of many, the known names."""
    meta = item.metadata
    if hint is bool or is_required(item):
        return str(meta["help"])
    default = f"auto: {meta['auto']}" if meta["auto"] else meta["unset"] or str(item.default)
    if between := bounds(meta["low"], meta["high"]):
        default += f"; {between}"
    if len(meta["known"] or ()) > MOST_LISTED:
        default = f"{default}] [one of: {', '.join(meta['known'])}"
    return f"{meta['help']} [{default}]" if default else str(meta["help"])


def metavar(item: Field[Any], hint: Any) -> str:
    """Return what the value of an option is called in `--help`."""
    if item.metadata["metavar"]:
        return str(item.metadata["metavar"])
    kinds, known = _kinds(hint), tuple(item.metadata["known"] or ())
    words = choices(hint) or (known if len(known) <= MOST_LISTED else ())
    number = "N" if int in kinds else "X" if float in kinds else ""
    return "|".join([*([number] if number else []), *words]) or "TEXT"


def parse(item: Field[Any], hint: Any, text: str) -> Any:
    """Turn the text of an option into its value; `auto` gives None where None means that.

    Raises:
        UsageError: the text is no value of this type.
    """
    words, auto = choices(hint), item.metadata["auto"]
    if auto and text == "auto":
        return None
    if text in words:
        return text
    for number in (int, float):
        if number in _kinds(hint):
            try:
                return number(text)
            except ValueError:
                raise UsageError(_wrong_kind(item, hint, text)) from None
    if words:
        raise UsageError(_not_one_of(item, text, words))
    return text


def check(config: Any) -> None:
    """Hold each field of a config against its words and bounds; a path becomes text.

    Raises:
        UsageError: naming the flag, the value given and what is allowed.
    """
    for item, hint in settings(type(config)):
        value = getattr(config, item.name)
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
            object.__setattr__(config, item.name, value)
        if value is None and (item.metadata["auto"] or item.metadata["unset"]):
            continue
        known, low, high = (item.metadata[name] for name in ("known", "low", "high"))
        if known is not None and value not in known:
            raise UsageError(_not_one_of(item, value, tuple(known)))
        if not _fits(value, hint):
            raise UsageError(_wrong_kind(item, hint, value))
        if isinstance(value, str):
            continue
        if (low is not None and not value >= low) or (high is not None and not value <= high) or value == math.inf:
            raise UsageError(f"{flag(item)} {value}: must be {bounds(low, high)}")


def not_known(flag: str, value: Any, words: Collection[str], listed: str = "") -> str:
    """Return the sentence for a word that an option does not take: the nearest one, and what to choose from.

    Args:
        flag: the option.
        value: what was given.
        words: what it takes.
        listed: how these are shown, where they are not simply listed.
    """
    hint = habits.value(flag, str(value), words)
    return f"{flag} {value}: not known{hint}; choose from: {listed or ', '.join(words)}"


def to_dict(config: Any) -> dict[str, Any]:
    """Return the settings as they were asked for, by name; "auto" stays "auto"."""
    return {name: "auto" if value is None else value for name, value in vars(config).items()}


def from_dict(config_type: type[Config], values: Mapping[str, Any]) -> Config:
    """Build a config from `to_dict`'s form; missing keys keep their defaults.

    Raises:
        UsageError: an unknown key or an invalid value.
    """
    known = {item.name: item for item, _ in settings(config_type)}
    for name in values:
        if name not in known:
            meant = (habits.option(f"--{name}", [flag(item) for item in known.values()]) or "")[2:].replace("-", "_")
            hint = f" (did you mean '{meant}'?)" if meant in known else nearest(name, known)
            raise UsageError(f"unknown setting '{name}'{hint}")
    plain: dict[str, Any] = {
        name: None if value == "auto" and known[name].metadata["auto"] else value for name, value in values.items()
    }
    try:
        return config_type(**plain)
    except TypeError as error:
        raise UsageError(f"a setting has a value of the wrong type: {error}") from error


def _kinds(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) or (hint,)


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is of a setting's type; a bool is no number, a whole number is a number too."""
    kinds = _kinds(hint)
    if isinstance(value, str):
        return str in kinds or value in choices(hint)
    if isinstance(value, bool):
        return bool in kinds
    return (isinstance(value, int) and int in kinds) or (isinstance(value, (int, float)) and float in kinds)


def _wrong_kind(item: Field[Any], hint: Any, value: Any) -> str:
    words = choices(hint)
    names = [name for kind, name in _KIND_NAMES.items() if kind in _kinds(hint)]
    if not names:
        return _not_one_of(item, value, words)
    return f"{flag(item)} {value}: needs {' or '.join([*names, *words, *(['auto'] if item.metadata['auto'] else [])])}"


def _not_one_of(item: Field[Any], value: Any, words: tuple[str, ...]) -> str:
    all_words = [*(["auto"] if item.metadata["auto"] else []), *words]
    listed = ", ".join(all_words) if len(words) <= MOST_LISTED else "the list in imgcls train --help"
    return not_known(flag(item), value, words, listed)
