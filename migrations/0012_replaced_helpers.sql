-- Helpers whose arguments have changed: the old ones go, so that no two functions have one name.

drop function if exists ducto._reserve_reply(ducto.reservations, text);
drop function if exists ducto._deduct_reply(ducto.ledger, text);
drop function if exists ducto._charge_reply(ducto.ledger, text);
drop function if exists ducto._admission_refusal(
    text, text, text[], bigint, bigint, jsonb, bigint, bigint, bigint, bigint, bigint, bigint);
