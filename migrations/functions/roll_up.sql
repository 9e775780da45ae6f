-- Roll up: add finished ledger rows to the sums that spend reports read. Rows are taken in the order of the
-- transactions that wrote them, and only below the oldest transaction that is still running, so that none is missed:
-- what commits later has a higher number. Rows and how far they go change in one transaction, so that each row is added
-- once, whoever asks, and however often. Bookings take no part in it and never wait for it.

-- What the rows after one transaction, up to another, add up to.
create or replace function ducto._sums_of_hours(p_after xid8, p_last xid8)
returns table (hour timestamptz, user_id text, model text, spent numeric, refunded numeric, transactions bigint)
language sql stable as $$
    select pg_catalog.date_trunc('hour', s.created_at, 'UTC'), s.user_id, coalesce(s.model, ''), sum(s.spent),
        sum(s.refunded), sum(s.transactions)
    from ducto.spends as s where s.xid > p_after and s.xid <= p_last group by 1, 2, 3
$$;

-- Add about `p_limit` rows: whole transactions, so the last one may make it more. `value` tells how many; fewer than
-- the limit means that no finished row is left. 0 also where another session is at it.
create or replace function public.ducto_roll_up(p_limit integer default 10000) returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    v_fault jsonb := ducto._whole_fault(pg_catalog.to_jsonb(p_limit), 'limit', 1, 1000000);
    v_server bigint := (select c.system_identifier from pg_catalog.pg_control_system() as c);
    v_rolled ducto.rolled_up;
    v_now pg_snapshot;
    v_last xid8;
    v_rows bigint;
begin
    if v_fault is not null then
        return v_fault;
    end if;
    -- The migration has made it; who restored single tables may lack it.
    if not exists (select from ducto.rolled_up) then
        insert into ducto.rolled_up default values on conflict do nothing;
    end if;
    select r.* into v_rolled from ducto.rolled_up as r for no key update skip locked;
    if v_rolled.through is null then
        return '{"value": 0}';
    end if;
    -- Looked at after the lock: what the holder before us has rolled up is finished in this view.
    v_now := pg_catalog.pg_current_snapshot();
    if v_rolled.server is distinct from v_server or v_rolled.through >= pg_catalog.pg_snapshot_xmax(v_now) then
        -- Sums that another server has counted are made anew. Not truncated: a report that runs has to see them to its
        -- end, beside the old record of how far they go.
        delete from ducto.user_days;
        delete from ducto.model_hours;
        v_rolled.through := '0';
    end if;
    select max(x.xid) into v_last from (
        select l.xid from ducto.ledger as l
        where l.xid > v_rolled.through and l.xid < pg_catalog.pg_snapshot_xmin(v_now) order by l.xid limit p_limit
    ) as x;
    select count(*) into v_rows from ducto.ledger as l where l.xid > v_rolled.through and l.xid <= v_last;
    with added as materialized (
        select * from ducto._sums_of_hours(v_rolled.through, v_last)
    ), by_user as (
        insert into ducto.user_days as d (day, user_id, spent, refunded, transactions)
        select pg_catalog.date_trunc('day', a.hour, 'UTC'), a.user_id, sum(a.spent), sum(a.refunded),
            sum(a.transactions)
        from added as a group by 1, 2
        on conflict (day, user_id) do update set spent = d.spent + excluded.spent,
            refunded = d.refunded + excluded.refunded, transactions = d.transactions + excluded.transactions
    )
    insert into ducto.model_hours as h (hour, model, spent, refunded, transactions)
    select a.hour, a.model, sum(a.spent), sum(a.refunded), sum(a.transactions) from added as a group by 1, 2
    on conflict (hour, model) do update set spent = h.spent + excluded.spent,
        refunded = h.refunded + excluded.refunded, transactions = h.transactions + excluded.transactions;
    update ducto.rolled_up set through = coalesce(v_last, v_rolled.through), server = v_server
    where v_last is not null or server is distinct from v_server;
    return pg_catalog.jsonb_build_object('value', v_rows);
end
$$;

-- The audit of the sums: each is what the rows that were rolled up add up to. Sums that do not count (see
-- `_rolled_through`) are not looked at. Where there are many faults, the first hundred are told.
create or replace function ducto._verify_roll_up() returns table (invariant text, expected text, found text)
language sql stable as $$
    with through as materialized (
        select ducto._rolled_through() as xid
    ), rows as materialized (
        select r.* from ducto._sums_of_hours('0', (select t.xid from through as t)) as r
    ), from_rows as (
        select 'user_day' as kind, pg_catalog.date_trunc('day', r.hour, 'UTC') as at, r.user_id as name,
            sum(r.spent) as spent, sum(r.refunded) as refunded, sum(r.transactions) as transactions
        from rows as r group by 2, 3
        union all
        select 'model_hour', r.hour, r.model, sum(r.spent), sum(r.refunded), sum(r.transactions)
        from rows as r group by 2, 3
    ), kept as (
        select 'user_day' as kind, d.day as at, d.user_id as name, d.spent, d.refunded, d.transactions
        from ducto.user_days as d
        union all
        select 'model_hour', h.hour, h.model, h.spent, h.refunded, h.transactions from ducto.model_hours as h
    )
    select kind || '[' || ducto._iso(at) || ', ' || name || ']',
        row(r.spent, r.refunded, r.transactions)::text, row(k.spent, k.refunded, k.transactions)::text
    from from_rows as r full join kept as k using (kind, at, name)
    where row(r.spent, r.refunded, r.transactions) is distinct from row(k.spent, k.refunded, k.transactions)
        and (select t.xid from through as t) is not null
    order by 1 limit 100
$$;
