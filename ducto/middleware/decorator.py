"""`@metered`: a function whose calls are reserved before, and charged after, for what they used."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from ducto.context import acting_user
from ducto.errors import ConfigError, PricingError
from ducto.manager import CreditManager
from ducto.meter import MeteredCall
from ducto.middleware.found_usage import StreamUsage, usage_in_result
from ducto.middleware.providers.jsontext import text_bytes
from ducto.models import Metadata
from ducto.usage import UsageMetrics

__all__ = ["DEFAULT_OUTPUT_TOKENS", "metered"]

logger: logging.Logger = logging.getLogger("ducto.middleware.decorator")

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

#: Output reserved for, where neither the arguments nor the model's rate table limit it.
DEFAULT_OUTPUT_TOKENS = 4096
_OUTPUT_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")

Estimate = UsageMetrics | int


class _Decorator(Protocol):
    def __call__(self, function: Callable[P, R], /) -> Callable[P, R]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """The decorator's options; a callable among them is called with the arguments of each call."""

    manager: CreditManager
    model: str | Callable[..., str | None] | None
    user_id: str | Callable[..., str | None] | None
    team_id: str | Callable[..., str | None] | None
    estimate: Estimate | Callable[..., Estimate | None] | None
    usage: Callable[[Any], Estimate | None] | None
    idempotency_key: str | Callable[..., str | None] | None
    operation_type: str | Callable[..., str | None] | None
    feature: str | Callable[..., str | None] | None
    metadata: Metadata | Callable[..., Metadata]


def metered(
    manager: CreditManager,
    *,
    model: str | Callable[..., str | None] | None = None,
    user_id: str | Callable[..., str | None] | None = None,
    team_id: str | Callable[..., str | None] | None = None,
    estimate: Estimate | Callable[..., Estimate | None] | None = None,
    usage: Callable[[Any], Estimate | None] | None = None,
    idempotency_key: str | Callable[..., str | None] | None = None,
    operation_type: str | Callable[..., str | None] | None = None,
    feature: str | Callable[..., str | None] | None = None,
    metadata: Metadata | Callable[..., Metadata] = None,
) -> _Decorator:
    """Meter every call of an `async def`, a `def`, an async or a sync generator function; its type stays as
    it is.

    Each option is a value, or a function of the call's arguments.

    - `user_id` (and `team_id`): who pays; by default who acts, see `ducto.acting_as`. Nobody: `ConfigError`.
    - `estimate`: the worst case to reserve, usage or credits. By default a token for each byte of text in the
      arguments, and output up to an argument such as `max_tokens`, else up to what the model can answer.
    - `usage`: a function of the result that tells what was used, as usage or credits; for a generator it is asked for
      every item, and the last answer that is not `None` counts. By default the usage is found in OpenAI, Anthropic
      and LiteLLM answers and chunks, as objects or dicts.
    - `idempotency_key`: names the call, see `MeteredCall.start`: one that was charged raises `AlreadySettledError`.
    - `operation_type`: by default the function's name.

    A call that raises is not charged. A generator that is closed, or raises, after its first item is charged
    for the usage found so far, else by the manager's missing-usage policy. A function that *returns* a stream
    is charged when it returns; make it a generator instead. A `def` is for threads without an event loop,
    `ConfigError` elsewhere.
    """
    options = _Options(
        manager=manager,
        model=model,
        user_id=user_id,
        team_id=team_id,
        estimate=estimate,
        usage=usage,
        idempotency_key=idempotency_key,
        operation_type=operation_type,
        feature=feature,
        metadata=metadata,
    )

    def decorate(function: Callable[P, R], /) -> Callable[P, R]:
        # What each wrapper returns is what `function` returns, but that its kind decides it is beyond the types.
        if inspect.isasyncgenfunction(function):
            return cast("Callable[P, R]", _metered_async_generator(function, options))
        if inspect.iscoroutinefunction(function):
            return cast("Callable[P, R]", _metered_coroutine(function, options))
        if inspect.isgeneratorfunction(function):
            return cast("Callable[P, R]", _metered_generator(function, options))
        return _metered_function(function, options)

    return decorate


def _metered_coroutine(
    function: Callable[P, Coroutine[Any, Any, T]], options: _Options
) -> Callable[P, Coroutine[Any, Any, T]]:
    @functools.wraps(function)
    async def call_metered(*args: P.args, **kwargs: P.kwargs) -> T:
        terms = _terms_of(function, options, args, kwargs)
        async with await _metered_call(function, options.manager, terms, args, kwargs) as call:
            result = await function(*args, **kwargs)
            _record_result(call, options, result)
            return result

    return call_metered


def _metered_function(function: Callable[P, R], options: _Options) -> Callable[P, R]:
    portal = options.manager.portal
    instead = f"make {function.__name__!r} an `async def`, or call it in a thread (asyncio.to_thread)"

    @functools.wraps(function)
    def call_metered(*args: P.args, **kwargs: P.kwargs) -> R:
        call = _started_by_portal(function, options, args, kwargs, instead=instead)
        try:
            result = function(*args, **kwargs)
            _record_result(call, options, result)
        except BaseException as error:
            failure = error
            portal.finish(lambda: call.finish(failure))
            raise
        portal.finish(call.finish)
        return result

    return call_metered


def _metered_async_generator(
    function: Callable[P, AsyncGenerator[T, Any]], options: _Options
) -> Callable[P, AsyncGenerator[T, Any]]:
    @functools.wraps(function)
    async def iterate_metered(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T, Any]:
        terms = _terms_of(function, options, args, kwargs)
        async with await _metered_call(function, options.manager, terms, args, kwargs) as call:
            items = _Items(call, options)
            inner = function(*args, **kwargs)
            try:
                item = await anext(inner)
                while True:
                    items.take(item)
                    try:
                        sent = yield item
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # noqa: BLE001 - thrown in by the caller: the function's matter
                        item = await inner.athrow(error)
                    else:
                        item = await inner.asend(sent)
            except StopAsyncIteration:
                return
            finally:
                items.record()
                await inner.aclose()

    return iterate_metered


def _metered_generator(
    function: Callable[P, Generator[T, Any, Any]], options: _Options
) -> Callable[P, Generator[T, Any, Any]]:
    portal = options.manager.portal
    instead = f"make {function.__name__!r} an async generator, or iterate it in a thread (asyncio.to_thread)"

    @functools.wraps(function)
    def iterate_metered(*args: P.args, **kwargs: P.kwargs) -> Generator[T, Any, Any]:
        call = _started_by_portal(function, options, args, kwargs, instead=instead)
        items = _Items(call, options)
        try:
            returned = yield from _tapped(function(*args, **kwargs), items)
        except BaseException as error:
            failure = error
            items.record()
            portal.finish(lambda: call.finish(failure))
            raise
        items.record()
        portal.finish(call.finish)
        return returned

    return iterate_metered


def _tapped(inner: Generator[T, Any, Any], items: _Items) -> Generator[T, Any, Any]:
    """`inner`, with every item shown to `items`; what is sent and thrown in reaches it."""
    try:
        item = next(inner)
        while True:
            items.take(item)
            try:
                sent = yield item
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001 - thrown in by the caller: the function's matter
                item = inner.throw(error)
            else:
                item = inner.send(sent)
    except StopIteration as stop:
        return stop.value
    finally:
        inner.close()


class _Items:
    """What the items of a generator say that the call used."""

    def __init__(self, call: MeteredCall, options: _Options) -> None:
        self._call = call
        self._usage = options.usage
        self._stream = StreamUsage(model=call.terms.admitted_model)

    def take(self, item: object) -> None:
        """Read an item that is about to be delivered; one that cannot be read is no reason to withhold it."""
        self._call.note_delivery()
        try:
            if self._usage is None:
                self._stream.take(item)
            elif (told := self._usage(item)) is not None:
                self._call.record(told)
        except Exception:
            logger.exception("The usage of an item could not be read.")

    def record(self) -> None:
        if self._usage is not None:
            return
        found = self._stream.found()
        if found is not None:
            self._call.record(found.usage, estimated=found.estimated)


def _record_result(call: MeteredCall, options: _Options, result: object) -> None:
    """Note what the result says; where it cannot be read the missing-usage policy holds, for the work was
    done.
    """
    call.note_delivery()
    try:
        if options.usage is not None:
            told = options.usage(result)
            if told is not None:
                call.record(told)
            return
        found = usage_in_result(result, model=call.terms.admitted_model)
    except Exception:
        logger.exception("The usage of a result could not be read; the missing-usage policy holds.")
        return
    if found is not None:
        call.record(found.usage, estimated=found.estimated)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Terms:
    """The options of one call."""

    user_id: str
    team_id: str | None
    model: str | None
    estimate: Estimate | None
    idempotency_key: str | None
    operation_type: str
    feature: str | None
    metadata: Metadata


def _terms_of(
    function: Callable[..., Any], options: _Options, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> _Terms:
    """Ask the options, in the thread and the context of the caller. Raises `ConfigError` if nobody is to pay."""
    user_id = _of_call(options.user_id, args, kwargs)
    team_id = _of_call(options.team_id, args, kwargs)
    if user_id is None:
        actor = acting_user()
        if actor is None:
            raise ConfigError(
                f"Nobody is known to pay for {function.__name__!r}; give `user_id` to @metered, "
                "or call it inside `with ducto.acting_as(user_id):`."
            )
        user_id, team_id = actor.user_id, team_id or actor.team_id
    return _Terms(
        user_id=user_id,
        team_id=team_id,
        model=_of_call(options.model, args, kwargs),
        estimate=_of_call(options.estimate, args, kwargs),
        idempotency_key=_of_call(options.idempotency_key, args, kwargs),
        operation_type=_of_call(options.operation_type, args, kwargs) or function.__name__,
        feature=_of_call(options.feature, args, kwargs),
        metadata=_of_call(options.metadata, args, kwargs),
    )


async def _metered_call(
    function: Callable[..., Any],
    manager: CreditManager,
    terms: _Terms,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> MeteredCall:
    """A call that is not admitted yet."""
    estimate = terms.estimate
    if estimate is None:
        estimate = await _default_estimate(function, manager, terms.model, args, kwargs)
    return manager.meter(
        terms.user_id,
        estimate=estimate,
        operation_type=terms.operation_type,
        idempotency_key=terms.idempotency_key,
        team_id=terms.team_id,
        model=terms.model,
        feature=terms.feature,
        metadata=terms.metadata,
    )


def _started_by_portal(
    function: Callable[..., Any],
    options: _Options,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    instead: str,
) -> MeteredCall:
    """An admitted call, from code that is not async."""
    terms = _terms_of(function, options, args, kwargs)

    async def start() -> MeteredCall:
        call = await _metered_call(function, options.manager, terms, args, kwargs)
        await call.start()
        return call

    return options.manager.portal.call(start, instead=instead)


async def _default_estimate(
    function: Callable[..., Any],
    manager: CreditManager,
    model: str | None,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> UsageMetrics:
    if model is None:
        raise ConfigError(
            f"It is not known what {function.__name__!r} may cost; give `estimate` or `model` to @metered."
        )
    arguments = inspect.signature(function).bind(*args, **kwargs).arguments
    limits = {**arguments, **kwargs}
    output = next((limits[name] for name in _OUTPUT_LIMITS if type(limits.get(name)) is int and limits[name] > 0), None)
    if output is None:
        try:
            output = (await manager.pricing()).max_output_tokens(model)
        except PricingError:
            output = None  # a model without a price is refused by the reserve, in better words
    texts = [list(value) if isinstance(value, tuple) else value for value in arguments.values()]
    return UsageMetrics(model=model, input_tokens=text_bytes(texts), output_tokens=output or DEFAULT_OUTPUT_TOKENS)


def _of_call(given: T | Callable[..., T], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> T:
    """The option's value for this call."""
    if callable(given):
        return given(*args, **kwargs)
    return given
