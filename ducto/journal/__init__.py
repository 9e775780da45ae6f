"""The settle journal: what is owed, kept on the local disk before the store is asked, until the store has answered.

It knows files and nothing of stores: an entry is a JSON object. `ducto.manager` puts what calls owe into it, and
replays what an earlier process left.
"""

from ducto.journal.adopting import Adopted, adopt_segments
from ducto.journal.folder import BooksFolder
from ducto.journal.listing import BooksListing, SegmentListing, list_journal
from ducto.journal.settings import JOURNAL_VARIABLE, SettleJournal, journal_of_environment
from ducto.journal.writer import JournalUnavailableError, JournalWriter

__all__ = [
    "JOURNAL_VARIABLE",
    "Adopted",
    "BooksFolder",
    "BooksListing",
    "JournalUnavailableError",
    "JournalWriter",
    "SegmentListing",
    "SettleJournal",
    "adopt_segments",
    "journal_of_environment",
    "list_journal",
]
