-- Expire: the sweep of expired credits, the reaper of expired reservations, and the pruning of ended ones. None of
-- them needs to be on time, and none waits for an account that is in use: what it skips is booked when the account is
-- next written to, or by the next run.

-- Lock an account unless somebody else has; a row of nulls where that is so.
create or replace function ducto._try_lock(p_kind text, p_id text) returns ducto.accounts
language plpgsql as $$
declare
    a ducto.accounts;
begin
    select x.* into a from ducto.accounts as x
    where x.account_kind = p_kind and x.account_id = p_id for no key update skip locked;
    return a;
end
$$;

-- Book the expiry of the grants of one account: how many, and how many credits. A dry run undoes it, and so does an
-- account where no grant expired.
create or replace function ducto._sweep(p_kind text, p_id text, p_dry_run boolean, out grants bigint, out amount bigint)
language plpgsql as $$
declare
    a ducto.accounts := ducto._try_lock(p_kind, p_id);
    v_before bigint := a.sequence;
    v_now timestamptz := greatest(ducto._clock(), a.last_op_at);
begin
    grants := 0;
    if a.account_id is null then
        return;
    end if;
    begin
        a := ducto._book_due(a, v_now);
        select pg_catalog.count(*), coalesce(-pg_catalog.sum(l.amount), 0) into grants, amount from ducto.ledger as l
        where l.account_kind = p_kind and l.account_id = p_id and l.sequence > v_before and l.type = 'expiry';
        if p_dry_run or grants = 0 then
            raise exception 'dry run' using errcode = 'DU001';
        end if;
        a := ducto._commit(a, v_now);
        perform ducto._save(a);
    exception when sqlstate 'DU001' then
        null;  -- Variables keep what was counted; tables do not.
    end;
end
$$;

-- Up to `p_limit` accounts, from `p_after` on; `next` goes on from there, and is null at the end.
create or replace function public.ducto_sweep(
    p_dry_run boolean default false, p_after text default null, p_limit integer default 10000) returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    v_due record;
    v_swept record;
    v_seen integer := 0;
    v_accounts bigint := 0;
    v_grants bigint := 0;
    v_amount bigint := 0;
    v_next text;
begin
    for v_due in
        select distinct g.account_kind as kind, g.account_id as id from ducto.grants as g
        where g.remaining > 0 and g.expires_at <= ducto._clock()
            and (p_after is null or (g.account_kind, g.account_id)
                > (pg_catalog.left(p_after, 1) collate "C", pg_catalog.substr(p_after, 3) collate "C"))
        order by 1, 2
        limit p_limit
    loop
        v_swept := ducto._sweep(v_due.kind, v_due.id, p_dry_run);
        if v_swept.grants > 0 then
            v_accounts := v_accounts + 1;
            v_grants := v_grants + v_swept.grants;
            v_amount := v_amount + v_swept.amount;
        end if;
        v_seen := v_seen + 1;
        v_next := v_due.kind || ':' || v_due.id;
    end loop;
    return pg_catalog.jsonb_build_object('accounts', v_accounts, 'grants', v_grants, 'amount', v_amount,
        'dry_run', p_dry_run, 'next', case when v_seen = p_limit then v_next end);
end
$$;

-- Book the end of up to `p_limit` reservations that are past their grace, an account's earliest first.
create or replace function public.ducto_reap(p_limit integer default 1000) returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    v_fault jsonb := ducto._whole_fault(pg_catalog.to_jsonb(p_limit), 'limit', 1, 100000);
    v_due record;
    a ducto.accounts;
    v_now timestamptz;
    v_before bigint;
    v_ended jsonb;
    v_rows jsonb := '[]';
    v_amount bigint := 0;
    v_sum bigint;
begin
    if v_fault is not null then
        return v_fault;
    end if;
    for v_due in
        select distinct r.account_kind as kind, r.account_id as id from ducto.reservations as r
        where r.state = 'active' and r.due_at <= ducto._clock()
        order by 1, 2
        limit p_limit
    loop
        exit when pg_catalog.jsonb_array_length(v_rows) >= p_limit;
        a := ducto._try_lock(v_due.kind, v_due.id);
        continue when a.account_id is null;
        v_now := greatest(ducto._clock(), a.last_op_at);
        v_before := a.events;
        a := ducto._book_due(a, v_now, p_limit - pg_catalog.jsonb_array_length(v_rows));
        select pg_catalog.jsonb_agg(ducto._reservation(r, a.tag) order by e.event), pg_catalog.sum(r.amount)
        into v_ended, v_sum
        from ducto.reservation_ends as e
        join ducto.reservations as r on r.account_kind = e.account_kind and r.account_id = e.account_id
            and r.number = e.number
        where e.account_kind = v_due.kind and e.account_id = v_due.id and e.event > v_before;
        a := ducto._commit(a, v_now);
        perform ducto._save(a);
        v_rows := v_rows || coalesce(v_ended, '[]');
        v_amount := v_amount + coalesce(v_sum, 0);
    end loop;
    return pg_catalog.jsonb_build_object('reaped', pg_catalog.jsonb_array_length(v_rows), 'amount', v_amount,
        'reservations', v_rows);
end
$$;

-- Forget reservations that ended long ago, and their reserve keys. The ledger and its keys stay for ever.
create or replace function public.ducto_prune(p_ended_before_days integer default 30, p_limit integer default 1000)
returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    v_fault jsonb := coalesce(
        ducto._whole_fault(pg_catalog.to_jsonb(p_ended_before_days), 'ended_before_days', 30, 36500),
        ducto._whole_fault(pg_catalog.to_jsonb(p_limit), 'limit', 1, 100000));
    v_before timestamptz := ducto._clock() - pg_catalog.make_interval(hours => 24 * p_ended_before_days);
    v_old record;
    a ducto.accounts;
    v_now timestamptz;
    v_count bigint;
    v_pruned bigint := 0;
begin
    if v_fault is not null then
        return v_fault;
    end if;
    for v_old in
        -- A hold that ended by itself long ago counts, also if nobody has looked at the account since.
        select distinct o.kind, o.id from (
            (select r.account_kind as kind, r.account_id as id from ducto.reservations as r
             where r.created_at <= v_before and r.ended_at <= v_before limit p_limit)
            union all
            (select r.account_kind, r.account_id from ducto.reservations as r
             where r.state = 'active' and r.due_at <= v_before limit p_limit)
        ) as o order by 1, 2
    loop
        exit when v_pruned >= p_limit;
        a := ducto._try_lock(v_old.kind, v_old.id);
        continue when a.account_id is null;
        v_now := greatest(ducto._clock(), a.last_op_at);
        if a.next_due_at <= v_now then
            a := ducto._book_due(a, v_now);
        end if;
        a := ducto._commit(a, v_now);
        perform ducto._save(a);
        delete from ducto.reservations as r
        where r.account_kind = v_old.kind and r.account_id = v_old.id and r.number in (
            select x.number from ducto.reservations as x
            where x.account_kind = v_old.kind and x.account_id = v_old.id
                and x.ended_at <= v_now - pg_catalog.make_interval(hours => 24 * p_ended_before_days)
            order by x.ended_at, x.number limit p_limit - v_pruned);
        get diagnostics v_count = row_count;
        v_pruned := v_pruned + v_count;
    end loop;
    return pg_catalog.jsonb_build_object('value', v_pruned);
end
$$;
