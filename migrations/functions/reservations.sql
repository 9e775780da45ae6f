-- Reading a reservation.

create or replace function ducto._reservation(h ducto.reservations, p_tag text) returns jsonb
language sql stable as $$
    select pg_catalog.jsonb_build_object(
        'reservation_id', ducto._reservation_id(p_tag, h.number),
        'user_id', h.user_id,
        'team_id', ducto._team_of(h.account_kind, h.account_id),
        'amount', h.amount,
        'held', h.amount - h.allowance_held,
        'allowance_held', h.allowance_held,
        'state', h.state,
        'operation_type', h.operation_type,
        'model', h.model,
        'plan_id', h.plan_id,
        'pricing_version', h.pricing_version,
        'overage', h.overage,
        'min_balance', h.min_balance,
        'max_settle', h.max_settle,
        'grace_seconds', h.grace_seconds,
        'transaction_id', ducto._transaction_id(p_tag, h.settled_by),
        'idempotency_key', h.key,
        'metadata', h.metadata,
        'created_at', h.created_at,
        'expires_at', h.expires_at,
        'ended_at', h.ended_at)
$$;

create or replace function ducto._get_reservation(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language sql stable as $$
    select coalesce((
        select ducto._reservation(h, a.tag) from ducto.reservations as h
        where h.account_kind = a.account_kind and h.account_id = a.account_id and h.number = (p ->> 'number')::bigint
            and h.user_id = p ->> 'user_id'), ducto._no_reservation(p ->> 'reservation_id'))
$$;

create or replace function public.ducto_get_reservation(p_user_id text, p_reservation_id text) returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    p jsonb := pg_catalog.jsonb_build_object('user_id', p_user_id, 'reservation_id', p_reservation_id);
    v_fault jsonb := coalesce(
        ducto._text_fault(p -> 'user_id', 'user_id'),
        case when p_reservation_id is null then ducto._odd_text_fault(null, 'reservation_id', 200) end);
    v_holder record;
begin
    if v_fault is not null then
        return v_fault;
    end if;
    v_holder := ducto._holder(p_user_id, p_reservation_id);
    if v_holder.kind is null then
        return ducto._no_reservation(p_reservation_id);
    end if;
    return ducto._read('get_reservation', v_holder.kind, v_holder.id,
        p || pg_catalog.jsonb_build_object('number', v_holder.number));
end
$$;
