-- Release: end a reservation without a charge.

create or replace function ducto._release(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language plpgsql as $$
declare
    h ducto.reservations;
    v_id text := p ->> 'reservation_id';
    v_freed bigint;
begin
    select x.* into h from ducto.reservations as x
    where x.account_kind = a.account_kind and x.account_id = a.account_id and x.number = (p ->> 'number')::bigint
        and x.user_id = p ->> 'user_id';
    if not found then
        return ducto._no_reservation(v_id);
    end if;
    if h.state in ('settled', 'released') then
        return pg_catalog.jsonb_build_object('unwritten', true, 'reservation_id', v_id, 'released', false,
            'state', h.state, 'transaction_id', ducto._transaction_id(a.tag, h.settled_by),
            'available', a.base + a.granted - a.held);
    end if;
    a := ducto._commit(a, p_now);
    v_freed := case when h.state = 'expired' then 0 else h.amount end;
    update ducto.reservations as x set state = 'released', ended_at = p_now
    where x.account_kind = a.account_kind and x.account_id = a.account_id and x.number = h.number;
    a := ducto._note_end(a, h, 'credits.released', v_freed, p_now);
    if h.state = 'active' then
        a := ducto._free_hold(a, h);
        a := ducto._settle_freed(a, h, p_now, p_now);
    end if;
    if a.active = 0 and a.granted = 0 then
        a.next_due_at := 'infinity';
    end if;
    perform ducto._save(a);
    return pg_catalog.jsonb_build_object('reservation_id', v_id, 'released', true, 'state', 'released',
        'amount', v_freed, 'available', a.base + a.granted - a.held);
end
$$;

create or replace function ducto._release_item(p jsonb, p_wait boolean) returns jsonb
language plpgsql as $$
declare
    v_fault jsonb := coalesce(
        ducto._text_fault(p -> 'user_id', 'user_id'),
        case when pg_catalog.jsonb_typeof(p -> 'reservation_id') = 'string' then null
            else ducto._odd_text_fault(p -> 'reservation_id', 'reservation_id', 200) end);
    v_holder record;
begin
    if v_fault is not null then
        return v_fault;
    end if;
    v_holder := ducto._holder(p ->> 'user_id', p ->> 'reservation_id');
    if v_holder.kind is null then
        return ducto._no_reservation(p ->> 'reservation_id');
    end if;
    return ducto._run('release', v_holder.kind, v_holder.id,
        p || pg_catalog.jsonb_build_object('number', v_holder.number), p_wait);
end
$$;

-- Items have `user_id` and `reservation_id`. With `p_wait` false an item whose account is locked elsewhere answers
-- {"deferred": true}: send it again by itself.
create or replace function public.ducto_release(p_items jsonb, p_wait boolean default true) returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    v_kinds text[];
    v_ids text[];
begin
    if pg_catalog.jsonb_array_length(p_items) = 1 then
        return pg_catalog.jsonb_build_array(ducto._release_item(p_items -> 0, p_wait));
    end if;
    call ducto._holding_accounts(p_items, v_kinds, v_ids);
    perform ducto._lock_accounts(v_kinds, v_ids, p_wait);
    return ducto._serve_rest('release', p_items, v_kinds, v_ids, p_wait, null, null);
end
$$;
