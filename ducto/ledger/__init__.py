"""The money rules, as functions of a book and a time: one file for each verb.

No I/O, no clock, no lock: the caller brings the time and sees to it that one verb runs at a time. A verb either returns
its result, or raises a `CreditError` having changed nothing. The SQL functions of the database stores state the same
rules; a test sends the same random calls to both.
"""

from ducto.ledger.add import add
from ducto.ledger.adjust import adjust
from ducto.ledger.allowance import allowance, check_allowance
from ducto.ledger.charge import charge
from ducto.ledger.deduct import deduct
from ducto.ledger.expire import prune, reap, sweep
from ducto.ledger.refund import refund
from ducto.ledger.release import release
from ducto.ledger.renew import renew
from ducto.ledger.reserve import reserve
from ducto.ledger.state import Book
from ducto.ledger.transfer import transfer
from ducto.ledger.verify import verify

__all__ = [
    "Book",
    "add",
    "adjust",
    "allowance",
    "charge",
    "check_allowance",
    "deduct",
    "prune",
    "reap",
    "refund",
    "release",
    "renew",
    "reserve",
    "sweep",
    "transfer",
    "verify",
]
