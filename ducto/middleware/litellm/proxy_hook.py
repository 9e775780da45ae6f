"""`DuctoHook`: LiteLLM's callbacks, each a few lines over what is done for the other doors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, get_args

from litellm.integrations.custom_logger import CustomLogger  # type: ignore[import-not-found]

from ducto.errors import ConfigError, DuctoError, UnknownModelError
from ducto.manager import CreditManager
from ducto.meter import MissingUsage
from ducto.middleware.admitting import admit, read_request
from ducto.middleware.billing import AnswerFacts
from ducto.middleware.error_bodies import NOBODY, Refusal, refusal_for
from ducto.middleware.identity import Identity, identified
from ducto.middleware.litellm.calls import MARK, CallBook, ProxiedCall
from ducto.middleware.litellm.formats import CHAT, PASS_THROUGH, check_fields, kind_of, named_fallbacks, request_body
from ducto.middleware.litellm.options import PAYERS, CacheHits, IdentifyKey, Payer, PriceSource, check_choice
from ducto.middleware.litellm.pricing import credits_of, name_to_reserve, require_price
from ducto.middleware.litellm.reading import StreamTally, read_answer, read_logged_answer
from ducto.middleware.litellm.refusing import RefusedCallError
from ducto.middleware.litellm.serving import cost_of, dollars, models_of, served, served_as_noted
from ducto.middleware.options import CallOptions
from ducto.middleware.providers import Dialect, Provider, Tokenizer, UsageReading
from ducto.middleware.routes import Unmetered

__all__ = ["DuctoHook"]

logger: logging.Logger = logging.getLogger("ducto.litellm")

#: Call types in which a deployment of OpenAI's formats is called, also by LiteLLM's translations of other formats.
_ASKED_FOR_USAGE = frozenset({"acompletion", "atext_completion"})

_UNMETERED = Refusal(status=404, code="unmetered_route", message="This kind of call cannot be metered, so it is off.")


class DuctoHook(CustomLogger):  # type: ignore[misc]
    """A callback of the LiteLLM proxy that meters its calls. Register an instance of it, or of a class derived from it.

    A call is reserved for at its worst case before the router sees it, and refused with 402, 403, 429 or 503 if that
    fails. It is charged when its answer is there, before the client has its last byte: whole, or as much of it as was
    delivered when a stream breaks off or the client leaves. It is released when it finally failed, after all retries
    and fallbacks. Each call ends once, under the id of its reservation; ids that clients choose mean nothing here.
    """

    def __init__(
        self,
        manager: CreditManager | Callable[[], CreditManager],
        *,
        identity: Payer | IdentifyKey = "user",
        price: PriceSource = "pricing_config",
        cache_hits: CacheHits = "free",
        unmetered: Unmetered = "refuse",
        default_output_tokens: int = 16_384,
        tokenizer: Tokenizer | None = None,
        missing_usage: MissingUsage | None = None,
        feature: str | None = None,
        operation_type: str | None = None,
    ) -> None:
        """Meter with `manager`, or with the one that this function makes at the first call.

        * `identity` says who pays for the calls of a key: see `Payer`; or give a function of LiteLLM's
          `UserAPIKeyAuth`.
        * `price` charges by the active pricing config, under the public name of the model, else under that of the
          deployment's; or by the cost that LiteLLM reckons, times the config's `credits_per_usd` and `markup`. Where
          LiteLLM knows no cost (it then says 0), the config prices the tokens.
        * `cache_hits` says what answers out of LiteLLM's cache cost.
        * Calls of a kind that cannot be metered are refused, or let through and logged, by `unmetered`.
        * The other options are those of `MeteringMiddleware`.

        Raises `ConfigError` for options out of range.
        """
        super().__init__()
        if isinstance(identity, str):
            check_choice(identity, Payer, name="identity")
            self._identify: IdentifyKey = PAYERS[identity]
        elif callable(identity):
            self._identify = identity
        else:
            raise ConfigError(f"identity must be one of {', '.join(get_args(Payer))}, or a function of the key.")
        check_choice(price, PriceSource, name="price")
        check_choice(cache_hits, CacheHits, name="cache_hits")
        self._options = CallOptions(
            unmetered=unmetered,
            # LiteLLM reads the bodies, and has limits of its own.
            max_body_bytes=2**53,
            max_answer_bytes=2**53,
            default_output_tokens=default_output_tokens,
            tokenizer=tokenizer,
            clamp=None,
            missing_usage=missing_usage,
            include_usage=False,
            feature=feature,
            operation_type=operation_type,
        )
        self._price = price
        self._cache_hits = cache_hits
        self._make_manager = manager
        self._made: tuple[CreditManager, CallBook] | None = None

    def __init_subclass__(cls) -> None:
        """LiteLLM calls some hooks only where the instance's own class defines them, so each class does."""
        super().__init_subclass__()
        for name, value in vars(DuctoHook).items():
            if name.startswith("async_") and name not in vars(cls):
                setattr(cls, name, getattr(cls, name, value))

    @property
    def manager(self) -> CreditManager:
        """The manager, made by now."""
        return self._opened()[0]

    def _opened(self) -> tuple[CreditManager, CallBook]:
        if self._made is None:
            given = self._make_manager
            manager = given if isinstance(given, CreditManager) else given()
            book = CallBook(
                manager,
                price=self._price,
                cache_hits=self._cache_hits,
                missing_usage=self._options.missing_usage,
            )
            self._made = manager, book
        return self._made

    @property
    def _book(self) -> CallBook:
        return self._opened()[1]

    # Before the call

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any]:
        """Reserve, and mark the call. What goes wrong refuses it."""
        kind = kind_of(call_type, route=getattr(user_api_key_dict, "request_route", None))
        if kind == "free":
            return data
        dialect: Dialect = kind.dialect if kind is not None else "openai"
        try:
            if kind is None:
                logger.warning("A call of type %r cannot be metered.", call_type)
                if self._options.unmetered == "refuse":
                    raise RefusedCallError(_UNMETERED, dialect=dialect)
                return data
            identity = await identified(self._identify, user_api_key_dict)
            if identity is None:
                raise RefusedCallError(NOBODY, dialect=dialect)
            if call_type != PASS_THROUGH:
                check_fields(data)
            await self._book.forget_earlier()
            call = await self._admitted(kind, data, identity)
            call.key_hash = user_api_key_dict.api_key
            self._book.add(call)
        except DuctoError as error:
            refusal = refusal_for(error)
            if refusal.status >= 500:
                logger.exception("A call is refused.")
            raise RefusedCallError(refusal, dialect=dialect) from error
        if call_type == PASS_THROUGH:
            call.sent = True
            # The client sees the event that brings the usage: no hook of LiteLLM's could take it out.
            data.update(kind.ask_for_usage(data) or {})
        _mark(data, call.id, call_type=call_type)
        return data

    async def _admitted(self, provider: Provider, data: dict[str, Any], identity: Identity) -> ProxiedCall:
        public_name = data.get("model") if isinstance(data.get("model"), str) else None
        engine = await self.manager.pricing()
        deployments = models_of(public_name) if public_name is not None else []
        name = name_to_reserve(engine, public_name, deployments)
        for fallback in named_fallbacks(data) if self._price == "pricing_config" else ():
            require_price(engine, fallback, models_of(fallback))
        provider = provider.bind(model=name, headers=())
        request = await read_request(
            request_body(data, model=name), provider=provider, manager=self.manager, options=self._options
        )
        try:
            metered = (await admit(request, identity, key=None, manager=self.manager, options=self._options)).metered
        except UnknownModelError:
            if self._price != "response_cost":
                raise
            worst_case = request.worst_case(request.call)
            costs = [dollars(cost_of(one, worst_case)) for names in deployments for one in names]
            dearest = max((cost for cost in costs if cost is not None), default=None)
            if dearest is None:
                raise
            metered = self.manager.meter(
                identity.user_id,
                estimate=credits_of(engine, dearest),
                operation_type=self._options.operation_type or provider.name,
                team_id=identity.team_id,
                model=name,
                feature=self._options.feature,
            )
            await metered.start()
        return ProxiedCall(metered, request, key_hash=None, by_public_name=name == public_name)

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> dict[str, Any] | None:
        """An attempt at a deployment begins. A stream is asked for its usage, which LiteLLM does for chat alone."""
        call = self._book.find(kwargs, key_hash=_key_hash_in(kwargs))
        if call is None:
            return None
        call.sent = True
        if getattr(call_type, "value", call_type) not in _ASKED_FOR_USAGE:
            return None
        return CHAT.ask_for_usage(kwargs)

    # After it

    async def async_post_call_success_deployment_hook(
        self, request_data: dict[str, Any], response: Any, call_type: Any
    ) -> None:
        """A deployment has answered: the provider is paid from here on, whatever other callbacks do."""
        call = self._book.find(request_data, key_hash=_key_hash_in(request_data))
        if call is not None and not call.request.call.stream:
            reading = read_answer(response, call.request)
            if reading.usage is not None:
                call.answered = (
                    AnswerFacts(reading=reading, complete=True),
                    served_as_noted(_notes_in(request_data)),
                )

    async def async_post_call_success_hook(self, data: dict[str, Any], user_api_key_dict: Any, response: Any) -> Any:
        """Charge a plain answer before it is sent."""
        call = self._book.find(data, key_hash=user_api_key_dict.api_key)
        if call is not None:
            facts = AnswerFacts(reading=read_answer(response, call.request), complete=True)
            await self._book.charge(call, facts, served(response, data))
        return response

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: AsyncIterator[Any], request_data: dict[str, Any]
    ) -> AsyncIterator[Any]:
        """Pass a stream on, and charge it at its end, or when it breaks off."""
        call = self._book.find(request_data, key_hash=user_api_key_dict.api_key)
        if call is None:
            async for item in response:
                yield item
            return
        tally = StreamTally(call.request)
        call.streaming = True
        call.logged = asyncio.get_running_loop().create_future()
        complete = abandoned = False
        reading: UsageReading | None = None
        try:
            async for item in response:
                tally.take(item)
                yield item
            complete = True
            reading = tally.reading()
            if not (reading.final or tally.failed):
                # Some of LiteLLM's translations lose the usage on its way into the stream.
                reading = await call.usage_logged() or reading
        except (asyncio.CancelledError, GeneratorExit):
            abandoned = True
            raise
        finally:
            reading = reading or tally.reading()
            facts = AnswerFacts(
                reading=reading,
                complete=complete,
                failed=tally.failed,
                abandoned=abandoned,
                body_bytes=reading.delivered_bytes,
                passed_on=tally.begun,
            )
            call.streaming = False
            await self._book.charge(call, facts, served(response, request_data))

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """The call failed, and nothing more is tried: release it."""
        places = (request_data, request_data.get("litellm_params"))
        call = self._book.find(*places, key_hash=user_api_key_dict.api_key)
        if call is not None:
            await self._book.release(call)

    async def async_log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """The repeat, for calls that the hooks above did not see end, or whose charge could not be booked."""
        parameters = kwargs.get("litellm_params")
        call = self._book.find(parameters, key_hash=_key_hash_in(parameters))
        if call is None:
            return
        if call.closing:
            await self._book.confirm(call)
            return
        logged = read_logged_answer(response_obj, kwargs, call.request)
        if call.streaming:
            if logged.reading is not None and call.logged is not None and not call.logged.done():
                call.logged.set_result(logged.reading)
            return
        delivered = logged.reading.delivered_bytes if logged.reading is not None else 0
        facts = AnswerFacts(
            reading=logged.reading,
            complete=logged.complete,
            abandoned=not logged.complete,
            body_bytes=delivered,
            passed_on=True,
        )
        # The notes of a passed-through call are not the router's.
        notes = {} if kwargs.get("call_type") == PASS_THROUGH else _notes_in(parameters)
        served_by = served_as_noted(
            notes, cost_usd=kwargs.get("response_cost"), cache_hit=kwargs.get("cache_hit") is True
        )
        if call.request_over or kwargs.get("call_type") == PASS_THROUGH:
            await self._book.charge(call, facts, served_by)
        else:
            # Its own end is still to come; this may be of a call that another callback made within it.
            call.answered = call.answered or (facts, served_by)


def _mark(data: dict[str, Any], call_id: str, *, call_type: str) -> None:
    """Put our id where LiteLLM keeps its own notes, over whatever a client sent there."""
    # On some routes `metadata` is the client's, and is sent to the provider; there LiteLLM has a place of its own.
    # Of a passed-through request it takes `metadata` for itself, and sends anything else.
    apart = call_type != PASS_THROUGH and isinstance(data.get("litellm_metadata"), dict)
    place = "litellm_metadata" if apart else "metadata"
    if not isinstance(data.get(place), dict):
        data[place] = {}
    data[place][MARK] = {"call": call_id}


def _notes_in(place: object) -> Mapping[str, Any]:
    """LiteLLM's own notes in the data of a request: those of its authentication and of its router."""
    if isinstance(place, Mapping):
        for holder in (place.get("litellm_metadata"), place.get("metadata")):
            if isinstance(holder, Mapping) and "user_api_key_hash" in holder:
                return holder
    return {}


def _key_hash_in(place: object) -> str | None:
    """The hash of the caller's key."""
    key_hash = _notes_in(place).get("user_api_key_hash")
    return key_hash if isinstance(key_hash, str) else None
