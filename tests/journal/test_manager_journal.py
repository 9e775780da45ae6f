"""The manager and its journal: what a call owes is on the disk before the store is asked, and is charged once."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ducto.errors import AlreadySettledError, ConfigError, CreditOverflowError, ReservationNotFoundError, StoreError
from ducto.events import Event
from ducto.journal import SettleJournal, segment
from ducto.manager import CreditManager
from ducto.models import DeductionResult
from ducto.stores.memory import MemoryStore
from ducto.usage import MAX_AMOUNT, ToolCall, UsageMetrics
from tests.journal.support import LastingStore, contents, managed, outstanding, put_aside, segments
from tests.unit.manager_support import PRICING, Heard


async def eventually(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - the journal tells nobody
            await asyncio.sleep(0.01)


async def leave(store: LastingStore, folder: Path, amount: int = 40, **terms: Any) -> str:
    """A call that is finished and not charged, as by a process that dies; its reservation."""
    (reservation,) = await leave_several(store, folder, amount, 1, **terms)
    return reservation


async def leave_several(store: LastingStore, folder: Path, amount: int, calls: int, **terms: Any) -> list[str]:
    async with managed(store, folder, drain_seconds=0, journal=SettleJournal(folder)) as manager:
        await manager.add_credits("u", 1000, idempotency_key="start")
        made = [manager.meter("u", estimate=100, **terms) for _ in range(calls)]
        for call in made:
            await call.start()
        store.fail = 10**9
        settling = [asyncio.ensure_future(call.settle(amount)) for call in made]
        await eventually(lambda: store.calls.count("deduct") >= calls)
        logging.getLogger("ducto").setLevel(logging.CRITICAL)
    logging.getLogger("ducto").setLevel(logging.NOTSET)
    for one in settling:
        with pytest.raises(StoreError, match="do not charge for it again"):
            await one
    store.fail = 0
    store.calls.clear()
    return [call.reservation.reservation_id or "" for call in made]


async def test_the_record_is_on_disk_when_the_store_is_asked_and_gone_when_it_has_answered(folder: Path) -> None:
    seen: list[list[dict[str, Any]]] = []

    class Looking(LastingStore):
        async def deduct_credits(self, *args: Any, **kwargs: Any) -> DeductionResult:
            seen.append(outstanding(folder))
            return await super().deduct_credits(*args, **kwargs)

    async with managed(Looking(), folder) as manager:
        await manager.publish_pricing(PRICING)
        await manager.add_credits("u", 1000)
        used = UsageMetrics(model="m", input_tokens=3, tool_calls=(ToolCall(name="t"),))
        async with manager.meter("u", estimate=used, metadata={"tag": "é"}) as call:
            call.record(used)
        await eventually(lambda: outstanding(folder) == [])
    assert seen == [
        [
            {
                "kind": "settlement",
                "user_id": "u",
                "reservation_id": call.reservation.reservation_id,
                "amount": 6,
                "metadata": {"tag": "é"},
                "usage": {"model": "m", "input_tokens": 3, "tool_calls": [{"name": "t"}]},
            }
        ]
    ]
    assert segments(folder) == []


async def test_the_disk_has_answered_before_the_store_is_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    real = os.fsync

    def noted(descriptor: int) -> None:
        real(descriptor)
        steps.append("fsync")

    class Noting(LastingStore):
        async def deduct_credits(self, *args: Any, **kwargs: Any) -> DeductionResult:
            steps.append("deduct")
            return await super().deduct_credits(*args, **kwargs)

    monkeypatch.setattr(segment.os, "fsync", noted)
    async with managed(Noting(), folder) as manager:
        await manager.add_credits("u", 1000)
        for _ in range(3):
            async with manager.meter("u", estimate=10) as call:
                call.record(1)
    # The first one also makes the file, whose name is made to last as well as the folder's.
    assert steps[-4:] == ["fsync", "deduct", "fsync", "deduct"]
    assert steps.count("deduct") == 3
    assert steps[: steps.index("deduct")].count("fsync") >= 2


async def test_what_a_process_left_is_charged_by_the_next_with_all_that_was_known(folder: Path) -> None:
    store = LastingStore()
    reservation = await leave(store, folder, metadata={"tag": "é"})
    assert [entry["reservation_id"] for entry in outstanding(folder)] == [reservation]
    async with managed(store, folder) as manager:
        heard = Heard(manager, "credits.deducted")
        await eventually(lambda: not segments(folder))
        (event,) = await heard.of("deducted")
    assert event.data["reservation_id"] == reservation
    (row, _) = (await store.list_transactions("u")).transactions
    assert (row.amount, row.reservation_id, row.metadata) == (-40, reservation, {"tag": "é"})
    assert (await store.get_balance("u")).balance == 960


async def test_what_the_store_had_booked_is_struck_out_without_a_word(folder: Path) -> None:
    store = LastingStore()
    reservation = await leave(store, folder)
    await store.deduct_credits("u", reservation, 40)
    async with managed(store, folder) as manager:
        heard = Heard(manager)
        await eventually(lambda: not segments(folder))
        assert await heard.names() == []
    assert (await store.get_balance("u")).balance == 960


async def test_two_managers_that_start_together_charge_once(folder: Path) -> None:
    store = LastingStore()
    await leave(store, folder)
    store.pauses = 3
    async with managed(store, folder) as one, managed(store, folder) as other:
        heard = Heard(one, "credits.deducted"), Heard(other, "credits.deducted")
        await eventually(lambda: not segments(folder))
        assert len(await heard[0].of("deducted")) + len(await heard[1].of("deducted")) == 1
    assert store.calls.count("deduct") == 1


async def test_a_store_that_does_not_answer_holds_nobody_up_and_is_asked_until_it_does(folder: Path) -> None:
    store = LastingStore()
    async with managed(store, folder) as manager:
        heard = Heard(manager)
        await manager.add_credits("u", 1000)
        call = manager.meter("u", estimate=500)
        await call.start()
        store.fail = 10**9
        call.record(40)
        begin = asyncio.get_running_loop().time()
        await call.finish()
        assert asyncio.get_running_loop().time() - begin < 4
        assert isinstance(call.settle_error, StoreError)
        assert call.settle_error.retryable
        assert "credits" not in str(call.settle_error)
        (event,) = await heard.of("settle_deferred")
        assert (event.user_id, event.data["amount"], event.data["code"]) == ("u", 40, "store_unavailable")
        assert len(outstanding(folder)) == 1
        await asyncio.sleep(0.3)
        store.fail = 0
        await eventually(lambda: outstanding(folder) == [])
        assert "deduct_failed" not in await heard.names()
        assert len(await heard.of("deducted")) == 1
        assert (await manager.get_balance("u")).balance == 960


async def test_a_store_that_hangs_holds_nobody_up_either(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ducto.manager.settling.JOURNALED_SECONDS", 0.2)
    store = LastingStore()
    async with managed(store, folder) as manager:
        await manager.add_credits("u", 1000)
        call = manager.meter("u", estimate=500)
        await call.start()
        store.pauses = 10**9
        call.record(40)
        await call.finish()
        assert isinstance(call.settle_error, StoreError)
        store.pauses = 0
        await eventually(lambda: outstanding(folder) == [])
        assert (await manager.get_balance("u")).balance == 960


async def test_a_refused_settle_is_put_aside_with_its_reason(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = LastingStore()
    reservation = await leave(store, folder)
    await store.deduct_credits("u", reservation, 41)
    async with managed(store, folder) as manager:
        heard = Heard(manager, "credits.deduct_failed")
        await eventually(lambda: not segments(folder))
        (event,) = await heard.of("deduct_failed")
        with pytest.raises(ReservationNotFoundError):
            await manager.deduct("u", 7, reservation_id="rsv_dQ.12345")
    assert event.data["code"] == "idempotency_mismatch"
    assert "charge them by hand" in caplog.text
    (path,) = put_aside(folder, "settles.refused.jsonl")
    noted = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(one["code"], one["entry"]["amount"]) for one in noted] == [
        ("idempotency_mismatch", 40),
        ("reservation_not_found", 7),
    ]
    assert path.stat().st_mode & 0o777 == 0o600


async def test_another_key_that_settled_first_is_no_failure(folder: Path) -> None:
    async with managed(LastingStore(), folder) as manager:
        heard = Heard(manager, "credits.deduct_failed")
        await manager.add_credits("u", 1000)
        held = await manager.reserve("u", 100)
        await manager.deduct("u", 10, reservation_id=held.reservation_id, idempotency_key="one")
        with pytest.raises(AlreadySettledError):
            await manager.deduct("u", 10, reservation_id=held.reservation_id, idempotency_key="two")
        await eventually(lambda: outstanding(folder) == [])
        assert await heard.names() == []


async def test_a_forced_charge_under_the_callers_key_is_kept_and_others_are_not(folder: Path) -> None:
    store = LastingStore()
    seen: list[list[str]] = []
    real = store.charge_credits

    async def looking(*args: Any, **kwargs: Any) -> DeductionResult:
        seen.append([entry["idempotency_key"] for entry in outstanding(folder)])
        return await real(*args, **kwargs)

    store.charge_credits = looking  # type: ignore[method-assign]
    async with managed(store, folder) as manager:
        await manager.charge_credits("u", 0, idempotency_key="asks")
        await manager.charge_credits("u", 5, force=True, idempotency_key="mine")
        await eventually(lambda: outstanding(folder) == [])
        await manager.charge_credits("u", 5, force=True)
        with pytest.raises(CreditOverflowError):
            await manager.charge_credits("u", MAX_AMOUNT, force=True, idempotency_key="huge")
        await eventually(lambda: outstanding(folder) == [])
    assert seen == [[], ["mine"], [], ["huge"]]
    assert not put_aside(folder, "settles.refused.jsonl")


async def test_corrupt_records_are_put_aside_byte_for_byte_and_the_rest_is_replayed(folder: Path) -> None:
    store = LastingStore()
    await leave_several(store, folder, 10, 3)
    (path,) = segments(folder)
    header, *lines = path.read_bytes().splitlines(keepends=True)
    damaged = lines[1].replace(b"amount", b"amoumt")
    path.write_bytes(header + lines[0] + damaged + lines[2] + lines[0][:50])
    events: list[Event] = []
    manager = CreditManager(store, maintain_every_seconds=None, journal=folder)
    manager.on("journal.corrupt", events.append)
    async with manager:
        await eventually(lambda: not segments(folder))
    (aside,) = put_aside(folder, "*.corrupt")
    assert aside.read_bytes() == damaged
    assert [event.data["pieces"] for event in events] == [1]
    assert (await store.get_balance("u")).balance == 980


async def test_a_record_that_this_version_does_not_know_is_put_aside(folder: Path) -> None:
    store = LastingStore()
    await leave(store, folder)
    (path,) = segments(folder)
    from ducto.journal.records import record_line

    with path.open("ab") as file:
        file.write(record_line(77, 0, b'{"kind":"surcharge","user_id":"u"}'))
    async with managed(store, folder):
        await eventually(lambda: not segments(folder))
    (aside,) = put_aside(folder, "settles.refused.jsonl")
    assert json.loads(aside.read_text())["entry"] == {"kind": "surcharge", "user_id": "u"}
    assert (await store.get_balance("u")).balance == 960


async def test_a_journal_of_a_newer_format_or_of_other_books_is_left_alone(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = LastingStore()
    await leave(store, folder)
    (path,) = segments(folder)
    from ducto.journal import records

    header, rest = path.read_bytes().split(b"\n", 1)
    newer = records._line(b"#", b'{"format":"ducto-settle-journal","version":2,"books":"books of the test"}')
    path.write_bytes(newer + rest)
    other = path.with_name("1-0-1.journal")
    other.write_bytes(records.header_line(books="other", pid=1, at_milliseconds=0) + rest)
    async with managed(store, folder) as manager:
        await manager.replay_journal()
        await manager.replay_journal()
    assert len(segments(folder)) == 2
    assert (await store.get_balance("u")).balance == 1000
    assert caplog.text.count("is of format 2") == 1
    assert caplog.text.count("belongs to other books (other)") == 1
    assert header


async def test_a_full_journal_is_announced_once_and_calls_are_settled_without_it(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = LastingStore()
    settings = SettleJournal(folder, max_bytes=4096, replay_every_seconds=0.05)
    async with managed(store, folder, journal=settings) as manager:
        heard = Heard(manager)
        await manager.add_credits("u", 100_000)
        calls = [manager.meter("u", estimate=50) for _ in range(60)]
        for call in calls:
            await call.start()
        store.pauses = 200
        await asyncio.gather(*(call.settle(10) for call in calls))
        names = await heard.names()
        assert (names.count("journal.nearly_full"), names.count("journal.failing")) == (1, 1)
        assert "settled without it" in caplog.text
        assert (await manager.get_balance("u")).balance == 100_000 - 600
        store.pauses = 0
        async with manager.meter("u", estimate=50) as call:
            call.record(1)
        assert "written again" in caplog.text
        await eventually(lambda: outstanding(folder) == [])


async def test_closing_is_bounded_and_leaves_the_rest_to_the_journal(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = LastingStore()
    manager = CreditManager(store, maintain_every_seconds=None, drain_seconds=0.1, journal=folder)
    heard = Heard(manager)
    await manager.add_credits("u", 1000)
    calls = [manager.meter("u", estimate=100) for _ in range(5)]
    for call in calls:
        await call.start()
    store.pauses = 10**9
    settling = [asyncio.ensure_future(call.settle(10)) for call in calls]
    await eventually(lambda: store.calls.count("deduct") == 5)
    begin = asyncio.get_running_loop().time()
    await manager.aclose()
    assert asyncio.get_running_loop().time() - begin < 2
    assert {type(one) for one in await asyncio.gather(*settling, return_exceptions=True)} == {StoreError}
    names = [event.name for event in heard.events]
    assert names.count("credits.settle_deferred") == 5
    assert "credits.deduct_failed" not in names
    assert "5 settles are left to the journal" in caplog.text
    assert len(outstanding(folder)) == 5
    store.pauses = 0
    async with managed(store, folder):
        await eventually(lambda: not segments(folder))
    assert (await store.get_balance("u")).balance == 950


async def test_a_manager_that_outlives_its_loop_goes_on_with_its_journal(folder: Path) -> None:
    store = LastingStore()
    manager = CreditManager(
        store, maintain_every_seconds=None, journal=SettleJournal(folder, replay_every_seconds=0.05)
    )

    async def call() -> None:
        await manager.add_credits("u", 1000)
        async with manager.meter("u", estimate=100) as metered:
            metered.record(10)

    def run(work: Any) -> None:
        with asyncio.Runner() as runner:
            runner.run(work)

    await asyncio.to_thread(run, call())
    await asyncio.to_thread(run, call())
    await asyncio.to_thread(run, manager.aclose())
    assert (await store.get_balance("u")).balance == 1980
    assert contents(folder) == [] or outstanding(folder) == []


def test_which_journal_a_manager_has(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any, tmp_path: Path
) -> None:
    def of(store: Any, **options: Any) -> Path | None:
        journal = CreditManager(store, **options)._journal
        return None if journal is None else journal.folder.root

    class Nameless(LastingStore):
        @property
        def books_name(self) -> str | None:
            return None

    monkeypatch.setenv("DUCTO_JOURNAL", str(folder))
    assert of(LastingStore()) == folder
    assert of(MemoryStore()) is None
    assert of(LastingStore(), journal=None) is None
    assert of(LastingStore(), journal=tmp_path / "other") == tmp_path / "other"
    assert of(Nameless(), journal=SettleJournal(folder, books_name="mine")) == folder
    assert of(Nameless()) is None
    assert "cannot tell which books" in caplog.text
    with pytest.raises(ConfigError, match="books_name"):
        of(Nameless(), journal=folder)
    with pytest.raises(ConfigError, match="end with the process"):
        of(MemoryStore(), journal=folder)
    monkeypatch.setenv("DUCTO_JOURNAL", "off")
    assert of(LastingStore()) is None
    monkeypatch.setenv("DUCTO_JOURNAL", "/proc/nowhere")
    with pytest.raises(ConfigError, match="set DUCTO_JOURNAL to a folder"):
        of(LastingStore())
    with pytest.raises(ConfigError, match="set journal= to a folder"):
        of(LastingStore(), journal="/proc/nowhere")
    monkeypatch.delenv("DUCTO_JOURNAL")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert of(LastingStore()) == tmp_path / "state/ducto/journal"
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    assert of(LastingStore()) is None
    assert of(LastingStore()) is None
    assert caplog.text.count("what is owed when this process dies is lost") == 1


@pytest.mark.parametrize(
    "option", [{"max_bytes": 1}, {"max_bytes": 1e9}, {"replay_every_seconds": 0}, {"books_name": ""}]
)
def test_settings_out_of_range_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(option))):
        SettleJournal("somewhere", **option)


def test_an_empty_folder_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="empty"):
        SettleJournal("")
