"""`ducto pricing`: the versions of the pricing config."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ducto.cli import pricing_review
from ducto.cli.options import KeyOption, OutOption, group
from ducto.cli.output import Output, fields_table, rows_table
from ducto.cli.pricing_files import config_text, published, version_number, write_config
from ducto.cli.running import Books, plain_command, store_command
from ducto.models import PricingConfigData, RateTable
from ducto.pricing import compile_pricing
from ducto.pricing.files import load_pricing_file

__all__ = ["register"]

VersionArgument = Annotated[
    str | None, typer.Argument(metavar="[VERSION]", help="Number or id; by default the active version.")
]
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A .yaml, .yml or .json file.")]

#: What a table of models shows; the rest is in `pricing export`.
_MODEL_COLUMNS = ("model", "unit", "input", "cache_read", "cache_write", "output", "reasoning", "price")


def register(app: typer.Typer) -> None:
    pricing = group(app, "pricing", help="Prices: versions of the config, price lists, and what a call costs.")
    store_command(pricing, "show")(_show)
    store_command(pricing, "list")(_list)
    store_command(pricing, "set")(_set)
    store_command(pricing, "activate")(_activate)
    plain_command(pricing, "validate")(_validate)
    store_command(pricing, "export")(_export)
    pricing_review.register(pricing)


async def _show(books: Books, version: VersionArgument = None) -> None:
    """The prices and settings of a version."""
    found = await published(books, version)
    config = found.config
    settings = {
        "version": found.version,
        "id": found.id,
        "label": found.label,
        "active": found.active,
        "created_at": found.created_at,
        "markup": config.markup,
        "credits_per_usd": config.credits_per_usd,
        "rounding": config.rounding,
        "min_balance": config.min_balance,
        "signup_bonus": config.signup_bonus,
        "default_plan": config.default_plan,
        "plans": tuple(config.plans),
        "tools": tuple(config.tools),
        "search": tuple(config.search),
        "cache": tuple(config.cache),
        "fixed": tuple(config.fixed),
        "aliases": tuple(f"{alias} -> {model}" for alias, model in config.aliases.items()),
    }
    models = list(_models(config))
    books.out.show(found, fields_table(settings), rows_table(models, _MODEL_COLUMNS) if models else "It has no models.")


async def _list(books: Books) -> None:
    """All versions, newest first."""
    books.out.rows(
        await books.manager.get_pricing_history(),
        ("version", "active", "label", "created_at", "id"),
        empty="No pricing config is published yet: ducto pricing set FILE",
    )


async def _set(
    books: Books,
    file: FileArgument,
    label: Annotated[str | None, typer.Option("--label", help="What the list of versions calls it.")] = None,
    expect: Annotated[
        str | None,
        typer.Option("--expect", metavar="VERSION", help="Refuse unless this one is active (0: none is)."),
    ] = None,
    key: KeyOption = None,
) -> None:
    """Publish a config as the new active version. Calls that are running keep the prices they were admitted under."""
    used = books.key(key)
    version_id = await books.manager.publish_pricing(
        load_pricing_file(file),
        label,
        expected_version=None if expect is None else version_number(expect),
        idempotency_key=used,
    )
    await _published(books, version_id)


async def _activate(
    books: Books, version: Annotated[str, typer.Argument(metavar="VERSION", help="Number or id.")]
) -> None:
    """Make an earlier version active again."""
    await _published(books, await books.manager.activate_pricing(version_number(version)))


async def _published(books: Books, version_id: str) -> None:
    found = await published(books, version_id)
    document: dict[str, Any] = found.model_dump(mode="json", exclude={"config"})
    books.out.record(document if books.key_used is None else {**document, "key": books.key_used})


async def _validate(out: Output, file: FileArgument) -> None:
    """Check a config as a publish would, without a store. Exit code 1 where it is at fault."""
    config = load_pricing_file(file)
    compile_pricing(config)
    out.show(
        {"ok": True, "models": len(config.models), "plans": len(config.plans)},
        f"{file} can be published: {len(config.models)} models, {len(config.plans)} plans.",
    )


async def _export(books: Books, version: VersionArgument = None, out: OutOption = None) -> None:
    """A version as a file that `pricing set` takes: JSON, or with --out FILE.yaml YAML."""
    found = await published(books, version)
    if out is None:
        # The document itself is JSON, so --json changes nothing.
        typer.echo(config_text(found.config), nl=False)
        return
    write_config(found.config, out)
    books.out.show({"version": found.version, "written": str(out)}, f"Version {found.version} is in {out}.")


def _models(config: PricingConfigData) -> Iterator[dict[str, Any]]:
    for name, price in config.models.items():
        if isinstance(price, RateTable):
            more = [f"{len(price.tiers)} tiers"] if price.tiers else []
            more += [f"variant {key}" for key in price.variants]
            yield {"model": name, **dict(price), "price": ", ".join(more) or None}
        else:
            yield {"model": name, "unit": "credits", "price": price}
