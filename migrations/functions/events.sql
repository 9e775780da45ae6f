-- The events of the whole book, in an order that is safe under concurrent commits: by the transaction that wrote
-- them, and within it by account and the account's own count of events. Only transactions are shown that no running
-- one can come before (all below the oldest that is still running), so that a reader's cursor never skips a late
-- committer; a long transaction anywhere in the server delays events, and never loses one.
--
-- An event's id is `<transaction>.<tag of the account>.<count>`, and stays the same. Events are read from the ledger,
-- the reservations and their ends; that of making a reservation goes with the reservation when it is pruned.

create or replace function ducto._event_name(p_type text, p_operation text) returns text
language sql immutable parallel safe as $$
    select case
        when p_operation = 'adjust' then 'credits.adjusted'
        when p_type in ('purchase', 'grant', 'bonus', 'adjustment') then 'credits.added'
        when p_type in ('deduction', 'charge', 'allowance') then 'credits.deducted'
        when p_type = 'refund' then 'credits.refunded'
        when p_type = 'expiry' then 'credits.expired'
        when p_type = 'debt_repayment' then 'credits.debt_repaid'
        else 'credits.transferred'
    end
$$;

-- Events after a place in the order, the oldest `p_limit` of each kind.
create or replace function ducto._events_after(
    p_xid xid8, p_kind text, p_id text, p_event bigint, p_limit integer)
returns table (xid xid8, kind text, id text, event bigint, name text, occurred_at timestamptz, user_id text,
    amount bigint, transaction_id text, reservation_id text)
language sql stable as $$
    (select l.xid, l.account_kind, l.account_id, l.event, ducto._event_name(l.type, l.operation), l.created_at,
        l.user_id, l.amount,
        coalesce(l.transfer_id, ducto._transaction_id(ducto._tag(l.account_kind, l.account_id), l.sequence)),
        ducto._reservation_id(ducto._tag(l.account_kind, l.account_id), l.reservation)
     from ducto.ledger as l
     where l.xid >= p_xid and l.xid < pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())
        and (l.xid > p_xid or (l.account_kind, l.account_id, l.event) > (p_kind, p_id, p_event))
     order by l.xid, l.account_kind, l.account_id, l.event limit p_limit)
    union all
    (select r.xid, r.account_kind, r.account_id, r.event, 'credits.reserved', r.created_at, r.user_id, r.amount, null,
        ducto._reservation_id(ducto._tag(r.account_kind, r.account_id), r.number)
     from ducto.reservations as r
     where r.xid >= p_xid and r.xid < pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())
        and (r.xid > p_xid or (r.account_kind, r.account_id, r.event) > (p_kind, p_id, p_event))
     order by r.xid, r.account_kind, r.account_id, r.event limit p_limit)
    union all
    (select e.xid, e.account_kind, e.account_id, e.event, e.name, e.occurred_at, e.user_id, e.amount, null,
        ducto._reservation_id(ducto._tag(e.account_kind, e.account_id), e.number)
     from ducto.reservation_ends as e
     where e.xid >= p_xid and e.xid < pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())
        and (e.xid > p_xid or (e.account_kind, e.account_id, e.event) > (p_kind, p_id, p_event))
     order by e.xid, e.account_kind, e.account_id, e.event limit p_limit)
$$;

-- The place in the order that a cursor names: the beginning for null, nulls for what is no cursor.
create or replace function ducto._event_place(p_after text, out xid xid8, out kind text, out id text, out event bigint)
language plpgsql stable as $$
declare
    v_part text[] := pg_catalog.regexp_match(p_after, '^([0-9]{1,19})\.([ut][A-Za-z0-9_-]+)\.([1-9][0-9]{0,15})$');
begin
    if p_after is null then
        xid := '0';
        kind := '';
        id := '';
        event := 0;
        return;
    end if;
    select m.kind, m.id into kind, id from ducto._minted('txn_' || v_part[2] || '.1', 'txn_') as m;
    if kind is not null then
        xid := v_part[1]::xid8;
        event := v_part[3]::bigint;
    end if;
end
$$;

create or replace function public.ducto_list_events(p_after text default null, p_limit integer default 100)
returns jsonb
language plpgsql stable security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    v_fault jsonb := ducto._whole_fault(pg_catalog.to_jsonb(p_limit), 'limit', 1, 1000);
    v_after record := ducto._event_place(p_after);
    v_events jsonb;
begin
    if v_fault is not null then
        return v_fault;
    end if;
    if v_after.xid is null then
        return ducto._refusal('invalid_argument', 'A cursor is what the page before gave as next_cursor.');
    end if;
    select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'id', e.xid || '.' || ducto._tag(e.kind, e.id) || '.' || e.event,
        'name', e.name,
        'user_id', nullif(e.user_id, ''),
        'team_id', ducto._team_of(e.kind, e.id),
        'amount', e.amount,
        'transaction_id', e.transaction_id,
        'reservation_id', e.reservation_id,
        'occurred_at', e.occurred_at) order by e.xid, e.kind, e.id, e.event)
    into v_events
    from (
        select x.* from ducto._events_after(v_after.xid, v_after.kind, v_after.id, v_after.event, p_limit) as x
        order by x.xid, x.kind collate "C", x.id collate "C", x.event limit p_limit
    ) as e;
    return pg_catalog.jsonb_build_object('events', coalesce(v_events, '[]'), 'next_cursor', v_events -> -1 -> 'id');
end
$$;
