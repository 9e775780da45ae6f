"""Reading a `.env` file: a small form of the usual one, in which nothing is executed and nothing is substituted.

A line is `NAME=VALUE`, with `export` in front if you like. A value in single quotes is taken as it stands; in double
quotes `\\n`, `\\t`, `\\"` and `\\\\` are replaced; a bare value ends where ` #` begins a comment. Values of more than
one line, `$NAME` and commands are not supported: a `$` is a dollar sign.
"""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping
from pathlib import Path

from ducto.errors import ConfigError

__all__ = ["load_dotenv", "parse_dotenv"]

#: Only settings of ducto are taken: a `.env` in the working folder must not be able to set PYTHONPATH or PATH.
_OURS = re.compile(r"(DUCTO|SUPABASE)_[A-Z0-9_]+")
_LINE = re.compile(r"(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?P<value>.*)")
_SINGLE = re.compile(r"'(?P<text>[^']*)'\s*(?:#.*)?")
_DOUBLE = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"\s*(?:#.*)?')
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}


def parse_dotenv(text: str, *, name: str = ".env") -> dict[str, str]:
    """The variables of a file. Raises `ConfigError` with the number of the line at fault, never with its value."""
    found: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        parts = _LINE.fullmatch(line)
        value = None if parts is None else _value(parts["value"])
        if parts is None or value is None:
            raise ConfigError(f"{name}, line {number}: expected NAME=VALUE, with both quotes where there is one.")
        found[parts["name"]] = value
    return found


def _value(text: str) -> str | None:
    """The value that `text` spells, `None` where a quote is not closed."""
    if text.startswith("'"):
        quoted = _SINGLE.fullmatch(text)
        return None if quoted is None else quoted["text"]
    if text.startswith('"'):
        quoted = _DOUBLE.fullmatch(text)
        if quoted is None:
            return None
        return re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[0]), quoted["text"])
    return re.split(r"(?:^|\s)#", text, maxsplit=1)[0].rstrip()


def load_dotenv(environment: MutableMapping[str, str] = os.environ) -> None:
    """Add to `environment` what `.env` in the working folder, or the file that DUCTO_ENV_FILE names, says.

    Only names that begin with `DUCTO_` or `SUPABASE_` are taken, and what is set already stays. Raises `ConfigError`
    for a file that is not of this form, and for a named file that cannot be read.
    """
    named = environment.get("DUCTO_ENV_FILE")
    path = Path(named or ".env")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if named:
            raise ConfigError(f"DUCTO_ENV_FILE names {named}, which is not there.") from None
        return
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as text ({type(error).__name__}).") from None
    for variable, value in parse_dotenv(text, name=str(path)).items():
        if _OURS.fullmatch(variable):
            environment.setdefault(variable, value)
