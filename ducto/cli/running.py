"""Running a command: opening the store, and ending in an exit code and a sentence, never in a traceback."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar, get_type_hints
from uuid import uuid4

import typer
from pydantic import ValidationError

from ducto.cli.output import Output
from ducto.cli.settings import store_url
from ducto.errors import ArgumentError, ConfigError, DuctoError, StoreError
from ducto.manager import CreditManager
from ducto.models import Outcome
from ducto.pricing.config import validation_message
from ducto.stores.base import CreditStore
from ducto.stores.opening import open_store

__all__ = ["Books", "StoreOption", "exit_code", "opened", "plain_command", "store_command"]

Body = TypeVar("Body", bound=Callable[..., Awaitable[None]])

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="embedded:FOLDER, postgresql://host/database, https://PROJECT.supabase.co or memory; by default what "
        "DUCTO_STORE says. A URL with a password belongs into that variable.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


class Books:
    """The open store that a command works on, a manager in front of it, and where its output goes."""

    def __init__(self, store: CreditStore, manager: CreditManager, out: Output) -> None:
        self.store = store
        self.manager = manager
        self.out = out
        self.key_used: str | None = None

    def key(self, given: str | None) -> str:
        """The idempotency key of this command's write: as given by `--key`, else a new one."""
        self.key_used = given if given is not None else f"cli-{uuid4().hex}"
        return self.key_used

    def document(self, result: Outcome) -> dict[str, Any]:
        """The answer of a write as a document: its fields, and the key that it was made under."""
        fields = result.model_dump(mode="json", exclude={"error", "message", "details"})
        return fields if self.key_used is None else {**fields, "key": self.key_used}

    def written(self, result: Outcome) -> None:
        """Print the answer of a write."""
        self.out.record(self.document(result))


def exit_code(error: DuctoError) -> int:
    """2 for wrong use (an argument, an option, a setting), 1 for what was refused, failed or is at fault."""
    return 2 if isinstance(error, (ConfigError, ArgumentError)) else 1


def store_command(group: typer.Typer, name: str) -> Callable[[Body], Body]:
    """Register an async function whose first parameter is `Books` as a command with `--store` and `--json`.

    Its docstring is the help; its other parameters are the command's own. It ends the command by returning (exit
    code 0), by raising a `DuctoError`, or by `typer.Exit`.
    """

    def register(body: Body) -> Body:
        def command(*, store: str | None, json: bool, **given: Any) -> None:
            out = Output(as_json=json)
            asyncio.run(_ended(_on_books(body, store, out, given), out))

        _describe(command, body, {"store": StoreOption, "json": JsonOption})
        group.command(name)(command)
        return body

    return register


def plain_command(group: typer.Typer, name: str, *, has_document: bool = True) -> Callable[[Body], Body]:
    """As `store_command`, for a command that may need no store: its first parameter is the `Output`.

    Without `has_document` it has no `--json`: for what runs until it is stopped.
    """

    def register(body: Body) -> Body:
        def command(*, json: bool = False, **given: Any) -> None:
            out = Output(as_json=json)
            asyncio.run(_ended(body(out, **given), out))

        _describe(command, body, {"json": JsonOption} if has_document else {})
        group.command(name)(command)
        return body

    return register


@asynccontextmanager
async def opened(given_url: str | None, out: Output) -> AsyncIterator[Books]:
    """The books that `--store` (`given_url`) or DUCTO_STORE names. Raises `ConfigError` where neither does.

    Where a write fails in a way that leaves its outcome unknown, a note tells the key to repeat it with.
    """
    async with (
        open_store(store_url(given_url)) as store,
        # Maintenance and the journal are for processes that stay; `ducto maintain` and `ducto journal` work on demand.
        CreditManager(store, maintain_every_seconds=None, journal=None) as manager,
    ):
        books = Books(store, manager, out)
        try:
            yield books
        except StoreError as error:
            if error.retryable and books.key_used is not None:
                out.note(f"It may have been done. Run it again with --key {books.key_used}: it is done once.")
            raise


async def _on_books(body: Callable[..., Awaitable[None]], given_url: str | None, out: Output, given: Any) -> None:
    async with opened(given_url, out) as books:
        await body(books, **given)


async def _ended(work: Awaitable[None], out: Output) -> None:
    try:
        await work
    except DuctoError as error:
        out.error(error)
        raise typer.Exit(exit_code(error)) from None
    except ValidationError as error:  # A value of a model of ours, made from arguments.
        out.error(ArgumentError(validation_message(error)))
        raise typer.Exit(2) from None


def _describe(command: Callable[..., None], body: Callable[..., Awaitable[None]], shared: dict[str, Any]) -> None:
    """Give `command` the parameters of `body` after its first one, and the `shared` options, for typer to read."""
    hints = get_type_hints(body, include_extras=True)
    own = list(inspect.signature(body).parameters.values())[1:]
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[each.name]) for each in own]
    for name, annotation in shared.items():
        default = False if annotation is JsonOption else None
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        )
    command.__doc__ = body.__doc__
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
