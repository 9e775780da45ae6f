-- Reading reservations: one, and pages of them.

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
        'grant_holds', case when h.grant_holds is null then '[]'::jsonb
            else ducto._grant_parts(h.account_kind, h.account_id, h.grant_holds) end,
        'created_at', h.created_at,
        'expires_at', h.expires_at,
        'ended_at', h.ended_at) || coalesce(h.findings, '{}')
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

create or replace function ducto._states_fault(p_states jsonb) returns jsonb
language plpgsql stable parallel safe as $$
declare
    c_states constant text[] := array['active', 'settled', 'released', 'expired'];
    v_fault jsonb;
begin
    if pg_catalog.jsonb_typeof(p_states) is distinct from 'array' or p_states = '[]' then
        return ducto._refusal('invalid_argument',
            'states must be one or more of ' || pg_catalog.array_to_string(c_states, ', ') || ', in a list.');
    end if;
    select f.fault into v_fault from pg_catalog.jsonb_array_elements(p_states) as e(state)
    cross join lateral ducto._choice_fault(e.state, 'states', c_states) as f(fault)
    where f.fault is not null limit 1;
    return v_fault;
end
$$;

-- Reservations after a place, in the order of kind and id of their accounts and their own number: open ones alone, as
-- `p_now` has it, or any. With a user those of its own account and of its teams; in `_listed` the other members' go.
--
-- Open ones are looked for in the index of them alone, which is as small as the number of calls that are running.
create or replace function ducto._reservations_after(
    p_user_id text, p_open boolean, p_now timestamptz, p_kind text, p_id text, p_number bigint, p_limit integer)
returns setof ducto.reservations
language plpgsql stable as $$
begin
    if p_open and p_user_id is null then
        return query
            select r.* from ducto.reservations as r
            where r.state = 'active' and r.due_at > p_now
                and (r.account_kind collate "POSIX", r.account_id collate "POSIX") >= (p_kind, p_id)
                and (r.account_kind, r.account_id, r.number) > (p_kind, p_id, p_number)
            order by r.account_kind collate "POSIX", r.account_id collate "POSIX", r.number limit p_limit;
    elsif p_open then
        return query
            select h.* from ducto._accounts_of(p_user_id) as o cross join lateral (
                select r.* from ducto.reservations as r
                where r.account_kind = o.kind collate "POSIX" and r.account_id = o.id collate "POSIX"
                    and r.state = 'active' and r.due_at > p_now and r.user_id = p_user_id
                    and (r.account_kind, r.account_id, r.number) > (p_kind, p_id, p_number)
                order by r.number limit p_limit
            ) as h
            order by h.account_kind, h.account_id, h.number limit p_limit;
    elsif p_user_id is null then
        return query
            select r.* from ducto.reservations as r
            where (r.account_kind, r.account_id, r.number) > (p_kind, p_id, p_number)
            order by r.account_kind, r.account_id, r.number limit p_limit;
    else
        return query
            select h.* from ducto._accounts_of(p_user_id) as o cross join lateral (
                select r.* from ducto.reservations as r
                where r.account_kind = o.kind and r.account_id = o.id
                    and (r.account_kind, r.account_id, r.number) > (p_kind, p_id, p_number)
                order by r.number limit p_limit
            ) as h
            order by h.account_kind, h.account_id, h.number limit p_limit;
    end if;
end
$$;

-- The accounts that a user may have reserved on: its own, and those of the teams that it is or was in.
create or replace function ducto._accounts_of(p_user_id text) returns table (kind text, id text)
language plpgsql stable as $$
begin
    return query
        select 'u', p_user_id
        union all
        select m.account_kind, m.account_id from ducto.members as m where m.user_id = p_user_id collate "POSIX";
end
$$;

-- Up to `p_limit` reservations in one of `p_states` after the cursor, the id of the last one seen. Where those looked
-- through are not of these states, it stops after ten times as many, so that a page is quick however rare they are.
create or replace function public.ducto_list_reservations(
    p_user_id text default null, p_states jsonb default '["active"]', p_cursor text default null,
    p_limit integer default 50) returns jsonb
language plpgsql stable security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    v_fault jsonb := coalesce(
        ducto._whole_fault(pg_catalog.to_jsonb(p_limit), 'limit', 1, 1000),
        ducto._optional_text_fault(pg_catalog.to_jsonb(p_user_id), 'user_id'),
        ducto._states_fault(p_states));
    v_after record := ducto._minted(coalesce(p_cursor, ''), 'rsv_');
    v_now timestamptz := ducto._clock();
    v_open boolean := p_states <@ '["active"]';
    v_most integer := case when p_states <@ '["active"]' then p_limit + 1 else greatest(1000, 10 * p_limit) end;
    v_rows jsonb;
    v_last text;
begin
    if v_fault is not null then
        return v_fault;
    end if;
    if p_cursor is not null and v_after.kind is null then
        return ducto._refusal('invalid_argument', 'A cursor is what the page before gave as next_cursor.');
    end if;
    with seen as materialized (
        select h, a.tag, h.state = 'active' and h.due_at <= greatest(v_now, a.last_op_at) as is_over,
            pg_catalog.row_number() over (order by h.account_kind, h.account_id, h.number) as place
        from ducto._reservations_after(p_user_id, v_open, v_now, coalesce(v_after.kind, ''), coalesce(v_after.id, ''),
            coalesce(v_after.number, 0), v_most) as h
        join ducto.accounts as a on a.account_kind = h.account_kind and a.account_id = h.account_id
    ), wanted as (
        select s.* from seen as s
        where p_states ? case when s.is_over then 'expired' else (s.h).state end
            and (p_user_id is null or (s.h).user_id = p_user_id)
        order by s.place limit p_limit + 1
    ), shown as (
        select w.* from wanted as w order by w.place limit p_limit
    )
    select
        (select pg_catalog.jsonb_agg(ducto._reservation(s.h, s.tag) || case when s.is_over then
            pg_catalog.jsonb_build_object('state', 'expired', 'ended_at', (s.h).due_at) else '{}' end order by s.place)
         from shown as s),
        case when (select pg_catalog.count(*) > p_limit from wanted)
            then (select ducto._reservation_id(s.tag, (s.h).number) from shown as s order by s.place desc limit 1)
            else (select ducto._reservation_id(s.tag, (s.h).number) from seen as s where s.place = v_most) end
    into v_rows, v_last;
    return pg_catalog.jsonb_build_object('reservations', coalesce(v_rows, '[]'), 'next_cursor', v_last);
end
$$;
