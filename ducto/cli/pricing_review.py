"""`ducto pricing diff`, `import` and `price`: looking at prices before they are published."""

from __future__ import annotations

from contextlib import AsyncExitStack
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.table import Table

from ducto.cli.options import KeyOption, OutOption
from ducto.cli.output import Output, fields_table, rows_table
from ducto.cli.pricing_files import active_or_refused, is_file, published, write_config
from ducto.cli.running import Books, StoreOption, opened, plain_command
from ducto.cli.settings import store_is_named
from ducto.errors import ArgumentError, ConfigError
from ducto.models import PricingConfigData, PricingConfigResult
from ducto.pricing import PricingEngine
from ducto.pricing.catalogue import ImportedPrices, PriceListName, import_prices, merged
from ducto.pricing.diff import PricingDiff, diff_pricing
from ducto.pricing.files import load_pricing_file
from ducto.pricing.suggestions import did_you_mean, nearest
from ducto.usage import COUNT_FIELDS, ToolCall, UsageMetrics

__all__ = ["register"]

#: More differences than these are counted, not listed; `--json` has them all.
_MAX_LINES = 60


def register(pricing: typer.Typer) -> None:
    plain_command(pricing, "diff")(_diff)
    plain_command(pricing, "import")(_import)
    plain_command(pricing, "price")(_price)


async def _diff(
    out: Output,
    first: Annotated[str, typer.Argument(metavar="[OLD]", help="A file or a version; by default the active version.")],
    second: Annotated[str | None, typer.Argument(metavar="NEW", help="A file or a version.")] = None,
    store: StoreOption = None,
) -> None:
    """What NEW would change, in the place of OLD or of the active version. Files alone need no store."""
    old, new = (None, first) if second is None else (first, second)
    async with AsyncExitStack() as stack:
        books: Books | None = None
        configs: list[PricingConfigData] = []
        for name in (old, new):
            if name is not None and is_file(name):
                configs.append(load_pricing_file(name))
                continue
            if books is None:
                books = await stack.enter_async_context(opened(store, out))
            configs.append((await published(books, name)).config)
    found = diff_pricing(*configs)
    out.show(found, *_lines(found))


async def _import(
    out: Output,
    source: Annotated[
        str, typer.Option("--from", metavar="LIST", help="genai-prices, litellm, or a copy of LiteLLM's JSON file.")
    ],
    models: Annotated[
        list[str] | None, typer.Option("--models", metavar="PATTERN", help="Such as 'gpt-*'; may be repeated.")
    ] = None,
    markup: Annotated[str, typer.Option("--markup", metavar="FACTOR", help="1.3 sells at 30 % above the list.")] = "1",
    out_file: OutOption = None,
    publish: Annotated[bool, typer.Option("--publish", help="Publish it, as the diff shows it.")] = False,
    key: KeyOption = None,
    store: StoreOption = None,
) -> None:
    """Build a config from a public price list, offline, and show what it would change.

    The models are laid over the active version, if a store is named; nothing is published without --publish.
    """
    imported = import_prices(_source(source), models=models or "*", markup=_factor(markup))
    async with AsyncExitStack() as stack:
        books: Books | None = None
        if publish or store_is_named(store):
            books = await stack.enter_async_context(opened(store, out))
        active = None if books is None else await books.manager.get_active_pricing()
        config = imported.config if active is None else merged(active.config, imported)
        changes = diff_pricing(PricingConfigData() if active is None else active.config, config)
        if out_file is not None:
            write_config(config, out_file)
        version_id: str | None = None
        if books is not None and publish and changes:
            version_id = await books.manager.publish_pricing(
                config,
                imported.label,
                # Another publish since the diff was made refuses this one.
                expected_version=0 if active is None else active.id,
                idempotency_key=books.key(key),
            )
        _report_import(out, imported, changes, written=out_file, published=version_id, books=books)


def _report_import(
    out: Output,
    imported: ImportedPrices,
    changes: PricingDiff,
    *,
    written: Path | None,
    published: str | None,
    books: Books | None,
) -> None:
    document = {
        "label": imported.label,
        "skipped": imported.skipped,
        "notes": imported.notes,
        "diff": changes,
        "written": None if written is None else str(written),
        "published": published,
        "key": None if books is None else books.key_used,
    }
    remarks = [f"skipped {note.model}: {note.reason}" for note in imported.skipped]
    remarks += [f"{note.model}: {note.reason}" for note in imported.notes]
    done = [f"Written to {written}."] if written is not None else []
    done += [f"Published as {published}."] if published is not None else []
    if changes and not done:
        done = ["Nothing was written or published: give --out FILE or --publish."]
    out.show(document, f"From {imported.label}:", *_lines(changes), *_some(remarks), *done)


async def _price(
    out: Output,
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="As a caller would name it.")] = None,
    input: Annotated[int, typer.Option("--input", min=0, help="Fresh input tokens.")] = 0,
    output: Annotated[int, typer.Option("--output", min=0, help="Visible output tokens.")] = 0,
    count: Annotated[
        list[str] | None,
        typer.Option("--count", metavar="NAME=N", help="Any other count, such as cache_read_tokens=500."),
    ] = None,
    tool: Annotated[list[str] | None, typer.Option("--tool", metavar="NAME", help="A call of this tool.")] = None,
    job: Annotated[str | None, typer.Option("--job", help="A job with a fixed price.")] = None,
    service_tier: Annotated[str | None, typer.Option("--service-tier", help="Such as flex.")] = None,
    speed: Annotated[str | None, typer.Option("--speed", help="Such as fast.")] = None,
    plan: Annotated[str | None, typer.Option("--plan", help="By this plan's prices.")] = None,
    config: Annotated[
        str | None,
        typer.Option("--config", metavar="FILE|VERSION", help="By this config; by default the active version."),
    ] = None,
    store: StoreOption = None,
) -> None:
    """What a call costs, part by part, and what would be reserved for one of its size."""
    usage = UsageMetrics.model_validate(
        {
            "model": model,
            "input_tokens": input,
            "output_tokens": output,
            "tool_calls": tuple(ToolCall(name=name) for name in tool or ()),
            "fixed_job": job,
            "service_tier": service_tier,
            "speed": speed,
            **dict(_count(text) for text in count or ()),
        }
    )
    version: PricingConfigResult | None = None
    if config is not None and is_file(config):
        prices = load_pricing_file(config)
    else:
        async with opened(store, out) as books:
            version = await (active_or_refused(books) if config is None else published(books, config))
        prices = version.config
    engine = PricingEngine(prices, version=None if version is None else version.id)
    cost = engine.calculate(usage, plan)
    summary = {
        "price": cost.total,
        "exact": cost.exact,
        "reserved_for_its_size": engine.estimate(usage, plan),
        "priced_by": cost.model,
        "plan_id": cost.plan_id,
        "pricing_version": cost.pricing_version,
    }
    out.show({**summary, "parts": cost.components}, _parts_table(cost.components), fields_table(summary))


def _parts_table(parts: tuple[object, ...]) -> Table | str:
    rows = [part._asdict() for part in parts if hasattr(part, "_asdict")]
    return rows_table(rows, ("name", "quantity", "amount")) if rows else "It has no priced part."


def _count(text: str) -> tuple[str, int]:
    """`cache_read_tokens=500` as a field and its count."""
    name, equals, number = text.partition("=")
    counts = [each for each in COUNT_FIELDS if each != "tool_calls"]
    if name not in counts:
        raise ArgumentError(f"--count: there is no count {name[:60]!r}{did_you_mean(nearest(name, counts))}.")
    if not equals or not number.isascii() or not number.isdecimal() or len(number) > 16:
        raise ArgumentError(f"--count takes NAME=N with a whole number, such as {name}=500.")
    return name, int(number)


def _source(text: str) -> PriceListName | Path:
    for name in get_args(PriceListName):
        if text == name:
            known: PriceListName = name
            return known
    path = Path(text)
    if not path.is_file():
        names = ", ".join(get_args(PriceListName))
        raise ConfigError(f"--from takes {names} or a file; there is no file {text[:200]!r}.")
    return path


def _factor(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ArgumentError(f"--markup takes a factor such as 1.3, not {text[:40]!r}.") from None


def _lines(changes: PricingDiff) -> list[str]:
    return _some(list(changes.lines())) or ["There is no difference."]


def _some(lines: list[str]) -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - _MAX_LINES
    return lines if more <= 0 else [*lines[:_MAX_LINES], f"... and {more} more (--json shows all)"]
