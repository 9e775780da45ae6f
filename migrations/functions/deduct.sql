-- Deduct: settle a reservation with what the call cost, once.

create or replace function ducto._deduct_fault(p jsonb) returns jsonb
language sql stable parallel safe as $$
    select coalesce(
        ducto._amount_fault(p -> 'amount'),
        ducto._text_fault(p -> 'user_id', 'user_id'),
        ducto._key_fault(p -> 'idempotency_key'),
        ducto._notes_fault(p),
        case when pg_catalog.jsonb_typeof(p -> 'reservation_id') = 'string' then null
            else ducto._odd_text_fault(p -> 'reservation_id', 'reservation_id', 200) end)
$$;

create or replace function ducto._deduct_looks_sound(p jsonb) returns boolean
language sql immutable parallel safe as $$
    select ducto._looks_sound(p, '
        $.amount.type() == "number" && $.amount >= 0 && $.amount <= 9007199254740991
        && $.user_id.type() == "string" && $.reservation_id.type() == "string"
        && !($.idempotency_key.type() != "string") && !($.model.type() != "string")
        && !($.pricing_version.type() != "string")
        && !($.usage.type() != "object") && !($.metadata.type() != "object")')
$$;

-- How an actual cost is paid, from numbers alone: `from_hold` of what is held (allowance first), then more allowance,
-- then free money, by the policy that the reservation was admitted with. `rejected` where that refuses it. The
-- set-based path and the single-item path both ask this.
create or replace function ducto._bill(
    p_actual bigint, p_amount bigint, p_late boolean, p_overage text, p_max_settle bigint, p_allowance_left bigint,
    p_free bigint, p_min_balance bigint)
returns table (rejected boolean, from_hold bigint, extra_allowance bigint, extra_money bigint, suspect boolean)
language sql immutable parallel safe as $$
    select
        p_actual > b.reserved and p_overage = 'reject',
        least(b.billable, b.reserved),
        least(b.beyond, p_allowance_left),
        case when p_overage = 'clamp'
            then least(b.beyond - least(b.beyond, p_allowance_left), greatest(0, p_free - p_min_balance))
            else b.beyond - least(b.beyond, p_allowance_left) end,
        b.billable < p_actual
    from (
        select r.reserved, r.billable, greatest(0, r.billable - r.reserved) as beyond
        from (select case when p_late then 0 else p_amount end as reserved, least(p_actual, p_max_settle) as billable) as r
    ) as b
$$;

create or replace function ducto._deduct_reply(
    p_tag text, p_sequence bigint, p_reservation bigint, p_user_id text, p_team_id text, p_amount bigint, p_actual bigint,
    p_allowance bigint, p_unbilled bigint, p_overage bigint, p_balance bigint, p_available bigint, p_late boolean,
    p_suspect boolean, p_more jsonb) returns jsonb
language sql stable as $$
    select pg_catalog.jsonb_build_object(
        'transaction_id', ducto._transaction_id(p_tag, p_sequence),
        'reservation_id', ducto._reservation_id(p_tag, p_reservation),
        'user_id', p_user_id,
        'team_id', p_team_id,
        'amount', p_amount,
        'actual', p_actual,
        'allowance_consumed', p_allowance,
        'unbilled', p_unbilled,
        'overage', p_overage,
        'balance_after', p_balance,
        'available', p_available,
        'late', p_late,
        'suspect', p_suspect) || coalesce(p_more, '{}')
$$;

create or replace function ducto._deduct_reply_of(r ducto.ledger, p_tag text) returns jsonb
language plpgsql stable as $$
begin
    return ducto._deduct_reply(p_tag, r.sequence, r.reservation, r.user_id, ducto._team_of(r.account_kind, r.account_id),
        -r.amount, r.actual, r.allowance, r.unbilled,
        case when r.late then r.charged else greatest(0, r.charged - r.reserved) end, r.balance_after,
        r.available_after, r.late, r.suspect, r.reply);
end
$$;

-- The answer to a settled or released reservation: the reservation is its own key.
create or replace function ducto._settled_before(a ducto.accounts, h ducto.reservations, p jsonb) returns jsonb
language plpgsql stable as $$
declare
    r ducto.ledger;
    v_id text := ducto._reservation_id(a.tag, h.number);
begin
    if h.state = 'released' then
        return ducto._refusal('reservation_released', 'The reservation ' || v_id
            || ' was released. Where the call did cost something, charge it directly.',
            pg_catalog.jsonb_build_object('reservation_id', v_id));
    end if;
    select l.* into r from ducto.ledger as l
    where l.account_kind = a.account_kind and l.account_id = a.account_id and l.sequence = h.settled_by;
    if p ->> 'idempotency_key' is not null and p ->> 'idempotency_key' is distinct from r.key then
        return ducto._refusal('already_settled', 'The reservation ' || v_id || ' was settled under another key, by '
            || ducto._transaction_id(a.tag, r.sequence) || '.', pg_catalog.jsonb_build_object(
                'transaction_id', ducto._transaction_id(a.tag, r.sequence), 'reservation_id', v_id));
    end if;
    if (p ->> 'amount')::bigint <> r.actual then
        return ducto._refusal('idempotency_mismatch', 'The reservation ' || v_id || ' was settled with ' || r.actual
            || ' credits, not ' || (p ->> 'amount') || '.', pg_catalog.jsonb_build_object(
                'mismatch', array['amount'], 'transaction_id', ducto._transaction_id(a.tag, r.sequence)));
    end if;
    return ducto._deduct_reply_of(r, a.tag) || '{"replayed": true}';
end
$$;

-- The answer to a key that was used before; null for a new key. The model compared is the one that the caller gave.
create or replace function ducto._deducted_before(a ducto.accounts, p jsonb) returns jsonb
language plpgsql stable as $$
declare
    r ducto.ledger := ducto._keyed_row(a, p ->> 'user_id', 'deduct', p ->> 'idempotency_key');
begin
    if r.sequence is null then
        return null;
    end if;
    return coalesce(
        ducto._mismatch(r.key, array['amount', 'reservation_id', 'model'], array[
            r.actual <> (p ->> 'amount')::bigint,
            ducto._reservation_id(a.tag, r.reservation) <> p ->> 'reservation_id',
            (case when r.model_given then r.model end) is distinct from p ->> 'model']),
        ducto._deduct_reply_of(r, a.tag) || '{"replayed": true}');
end
$$;

create or replace function ducto._deduct(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language plpgsql as $$
declare
    h ducto.reservations;
    r ducto.ledger;
    v_bill record;
    v_actual bigint := (p ->> 'amount')::bigint;
    v_late boolean;
    v_allowance_left bigint := 0;
    v_plan ducto.plans;
    v_refusal jsonb;
    v_id text := p ->> 'reservation_id';
begin
    if p ->> 'idempotency_key' is not null then
        v_refusal := ducto._deducted_before(a, p);
        if v_refusal is not null then
            return v_refusal;
        end if;
    end if;
    select x.* into h from ducto.reservations as x
    where x.account_kind = a.account_kind and x.account_id = a.account_id and x.number = (p ->> 'number')::bigint
        and x.user_id = p ->> 'user_id';
    if not found then
        return ducto._no_reservation(v_id);
    end if;
    if h.state in ('settled', 'released') then
        return ducto._settled_before(a, h, p);
    end if;
    v_late := h.state = 'expired';
    if v_late or v_actual > h.amount then
        v_plan := ducto._plan_of(a.plan_id);
        v_allowance_left := ducto._allowance_left(a, v_plan.free_allowance, h.created_at);
    end if;
    select b.* into v_bill from ducto._bill(v_actual, h.amount, v_late, h.overage, h.max_settle, v_allowance_left,
        a.base + a.granted - a.held, h.min_balance) as b;
    if v_bill.rejected then
        return case when v_late then ducto._refusal('reservation_expired', 'The reservation ' || v_id || ' has expired.',
                pg_catalog.jsonb_build_object('reservation_id', v_id))
            else ducto._refusal('exceeds_reservation', v_actual || ' credits exceed the ' || h.amount
                || ' reserved; the reservation stays active.',
                pg_catalog.jsonb_build_object('limit', h.amount, 'reservation_id', v_id)) end;
    end if;

    r := ducto._new_row(a, 'deduction', 'deduct', p_now);
    r.user_id := h.user_id;
    r.booked_at := h.created_at;
    r.actual := v_actual;
    r.charged := v_bill.from_hold + v_bill.extra_allowance + v_bill.extra_money;
    r.reservation := h.number;
    r.reserved := h.amount;
    r.operation_type := h.operation_type;
    r.model_given := p ->> 'model' is not null;
    r.model := coalesce(p ->> 'model', h.model);
    r.pricing_version := coalesce(p ->> 'pricing_version', h.pricing_version);
    r.plan_id := h.plan_id;
    r.usage := ducto._present(p -> 'usage');
    r.estimated := ducto._flag(p -> 'estimated');
    r.late := v_late;
    r.suspect := v_bill.suspect;
    r.min_balance := h.min_balance;
    r.key := p ->> 'idempotency_key';
    r.metadata := ducto._present(p -> 'metadata');
    v_refusal := ducto._spend_overflow(a, r.user_id, h.created_at, r.model, r.charged, r.charged);
    if v_refusal is not null then
        return v_refusal;
    end if;

    a := ducto._commit(a, p_now);
    r.allowance := v_bill.extra_allowance;
    if not v_late then
        r.allowance := r.allowance + least(v_bill.from_hold, h.allowance_held);
        a := ducto._free_hold(a, h);
        call ducto._take_held(a, r, h, v_bill.from_hold - least(v_bill.from_hold, h.allowance_held));
    end if;
    if v_bill.extra_money > 0 then
        call ducto._spend_free(a, r, v_bill.extra_money);
    end if;
    call ducto._book_spend(a, r);
    update ducto.reservations as x set state = 'settled', ended_at = p_now, settled_by = r.sequence
    where x.account_kind = a.account_kind and x.account_id = a.account_id and x.number = h.number;
    if h.grant_holds is not null or a.base < 0 then
        a := ducto._settle_freed(a, h, p_now, p_now);
        if a.base + a.granted <> r.balance_after then
            r.reply := pg_catalog.jsonb_build_object('balance_after', a.base + a.granted);
        end if;
    end if;
    r.available_after := a.base + a.granted - a.held;
    if a.has_caps then
        r.reply := nullif(coalesce(r.reply, '{}') || coalesce(ducto._exceeded_after(a, h.created_at, r.model,
            v_bill.extra_allowance + v_bill.extra_money), '{}'), '{}');
    end if;
    perform ducto._write(r);
    if a.active = 0 and a.granted = 0 then
        a.next_due_at := 'infinity';
    end if;
    perform ducto._save(a);
    return ducto._deduct_reply_of(r, a.tag);
end
$$;

-- Spend what was held, in the order in which it was allocated. The hold has been taken out of the counters.
create or replace procedure ducto._take_held(
    inout a ducto.accounts, inout r ducto.ledger, h ducto.reservations, p_money bigint)
language plpgsql as $$
declare
    v_part jsonb;
    v_taken bigint;
begin
    for v_part in select e.part from pg_catalog.jsonb_array_elements(h.grant_holds) as e(part) loop
        v_taken := least((v_part ->> 1)::bigint, p_money);
        if v_taken > 0 then
            a := ducto._move_grant(a, (v_part ->> 0)::bigint, -v_taken);
            r.grant_deltas := ducto._with_delta(r.grant_deltas, (v_part ->> 0)::bigint, -v_taken);
            p_money := p_money - v_taken;
        end if;
    end loop;
    a.base := a.base - p_money;
    r.base_delta := r.base_delta - p_money;
end
$$;

create or replace function ducto._deduct_item(p jsonb, p_wait boolean) returns jsonb
language plpgsql as $$
declare
    v_fault jsonb;
    v_holder record;
begin
    if not ducto._deduct_looks_sound(p) then
        v_fault := ducto._deduct_fault(p);
        if v_fault is not null then
            return v_fault;
        end if;
    end if;
    v_holder := ducto._holder(p ->> 'user_id', p ->> 'reservation_id');
    if v_holder.kind is null then
        return ducto._no_reservation(p ->> 'reservation_id');
    end if;
    return ducto._run('deduct', v_holder.kind, v_holder.id,
        p || pg_catalog.jsonb_build_object('number', v_holder.number), p_wait);
end
$$;

-- A lone call for a plain account and within what was reserved, which most calls are: see `_reserve_lone`.
create or replace function ducto._deduct_lone(p jsonb, p_wait boolean) returns jsonb
language plpgsql as $$
declare
    v_user_id text := p ->> 'user_id';
    v_key text := p ->> 'idempotency_key';
    v_actual bigint;
    v_base bigint;
    v_held bigint;
    v_active bigint;
    v_sequence bigint;
    v_event bigint;
    v_tag text;
    v_now timestamptz;
    v_next_due_at timestamptz;
    v_is_plain boolean;
    v_number text;
    h record;
begin
    if not ducto._deduct_looks_sound(p) then
        return ducto._deduct_item(p, p_wait);
    end if;
    select x.base, x.held, x.active, x.sequence + 1, x.events + 1, x.tag, x.last_op_at, x.next_due_at,
        x.granted = 0 and not x.has_caps, (p ->> 'amount')::bigint,
        pg_catalog.substr(p ->> 'reservation_id', pg_catalog.length(x.tag) + 6)
    into v_base, v_held, v_active, v_sequence, v_event, v_tag, v_now, v_next_due_at, v_is_plain, v_actual, v_number
    from ducto.accounts as x where x.account_kind = 'u' and x.account_id = v_user_id for no key update skip locked;
    if v_is_plain is not true or v_number !~ '^[1-9][0-9]{0,15}$' then
        return ducto._deduct_item(p, p_wait);
    end if;
    -- What follows sees what was written before the lock was had.
    select x.number, x.amount, x.min_balance, x.created_at, x.operation_type, coalesce(p ->> 'model', x.model) as model,
        coalesce(p ->> 'pricing_version', x.pricing_version) as pricing_version, x.plan_id, b.from_hold, b.suspect,
        greatest(v_now, ducto._clock()) as now
    into h
    from ducto.reservations as x
    cross join lateral ducto._bill(v_actual, x.amount, false, x.overage, x.max_settle, 0, 0, x.min_balance) as b
    where x.account_kind = 'u' and x.account_id = v_user_id and x.number = v_number::bigint
        and ducto._reservation_id(v_tag, x.number) = p ->> 'reservation_id'
        and x.state = 'active' and x.allowance_held = 0 and v_actual <= x.amount
        and (select true from ducto.ledger as l
            where l.account_kind = 'u' collate "POSIX" and l.account_id = v_user_id collate "POSIX"
                and l.user_id = v_user_id and l.operation = 'deduct' and l.key = v_key limit 1) is null;
    if h.number is null or v_next_due_at <= h.now or v_base - h.from_hold < -9007199254740991 then
        return ducto._deduct_item(p, p_wait);
    end if;
    v_base := v_base - h.from_hold;
    v_held := v_held - h.amount;
    insert into ducto.ledger (account_kind, account_id, sequence, event, xid, type, operation, user_id, amount,
        base_delta, balance_after, available_after, actual, charged, unbilled, reservation, reserved, min_balance,
        booked_at, created_at, estimated, suspect, model_given, operation_type, model, pricing_version, plan_id, key,
        usage, metadata)
    values ('u', v_user_id, v_sequence, v_event, pg_catalog.pg_current_xact_id(), 'deduction', 'deduct', v_user_id,
        -h.from_hold, -h.from_hold, v_base, v_base - v_held, v_actual, h.from_hold, v_actual - h.from_hold, h.number,
        h.amount, h.min_balance, h.created_at, h.now, ducto._flag(p -> 'estimated'), h.suspect, p ->> 'model' is not null,
        h.operation_type, h.model, h.pricing_version, h.plan_id, v_key, ducto._present(p -> 'usage'),
        ducto._present(p -> 'metadata'));
    update ducto.reservations as x set state = 'settled', ended_at = h.now, settled_by = v_sequence
    where x.account_kind = 'u' and x.account_id = v_user_id and x.number = h.number;
    update ducto.accounts as a
    set base = v_base, held = v_held, base_held = a.base_held - h.amount, active = v_active - 1, sequence = v_sequence,
        events = v_event, last_op_at = h.now,
        next_due_at = case when v_active = 1 then 'infinity' else v_next_due_at end
    where a.account_kind = 'u' and a.account_id = v_user_id;
    return ducto._deduct_reply(v_tag, v_sequence, h.number, v_user_id, null, h.from_hold, v_actual, 0,
        v_actual - h.from_hold, 0, v_base, v_base - v_held, false, h.suspect, null);
end
$$;

-- The set-based statement: the places of the items that it answered, and the answers. It leaves alone what was settled
-- or keyed before, what the policy `reject` refuses, and overage of `clamp` beside other items of the account.
create or replace procedure ducto._deduct_plain(
    p_items jsonb, p_locked text[], inout places bigint[], inout answers jsonb[])
language plpgsql as $$
declare
    v_clock timestamptz := ducto._clock();
begin
    with item as materialized (
        select e.ord, (e.p ->> 'amount')::bigint as actual,
            pg_catalog.count(*) over (partition by e.p ->> 'user_id') as all_items,
            e.p ->> 'user_id' as user_id, e.p ->> 'idempotency_key' as key, e.p ->> 'reservation_id' as reservation_id, e.p
        from pg_catalog.jsonb_array_elements(p_items) with ordinality as e(p, ord)
        where e.p ->> 'user_id' = any (p_locked) and ducto._deduct_fault(e.p) is null
    ), chosen as materialized (
        select d.* from (
            select x.*, pg_catalog.bool_and(
                -- An account with an item that is not plain keeps all of them, in their order, for the loop.
                x.items = x.all_items and x.has_allowance is not true and not x.rejected and x.same_hold = 1
                and (x.key is null or x.same_key = 1)
                and (x.items = 1 or x.overage <> 'clamp' or x.actual <= x.reserved)
                and x.base - x.charged_so_far >= -9007199254740991) over (partition by x.user_id) as fits
            from (
                select k.*,
                    pg_catalog.row_number() over account as place,
                    pg_catalog.count(*) over (partition by k.user_id) as items,
                    pg_catalog.count(*) over (partition by k.user_id, k.number) as same_hold,
                    pg_catalog.count(*) over (partition by k.user_id, k.key) as same_key,
                    (pg_catalog.sum(k.charged) over account)::bigint as charged_so_far,
                    (pg_catalog.sum(k.reserved) over account)::bigint as freed_so_far
                from (
                    select i.*, a.*, h.*, b.rejected, b.suspect, b.from_hold + b.extra_money as charged,
                        h.allowance_held > 0 or pl.free_allowance > 0 as has_allowance
                    from item as i
                    cross join lateral (
                        select x.ctid as place_of_row, x.base, x.held, x.active, x.sequence, x.events,
                            greatest(x.last_op_at, v_clock) as now, x.next_due_at, x.granted, x.has_caps, x.tag, x.plan_id
                        from ducto.accounts as x where x.account_kind = 'u' and x.account_id = i.user_id limit 1
                    ) as a
                    cross join lateral (
                        select case when pg_catalog.starts_with(i.reservation_id, x.prefix)
                                and pg_catalog.substr(i.reservation_id, pg_catalog.length(x.prefix) + 1)
                                    ~ '^[1-9][0-9]{0,15}$'
                            then pg_catalog.substr(i.reservation_id, pg_catalog.length(x.prefix) + 1)::bigint end as number
                        from (select 'rsv_' || a.tag || '.' as prefix) as x
                    ) as n
                    cross join lateral (
                        select x.ctid as place_of_hold, x.number, x.amount as reserved, x.allowance_held, x.max_settle,
                            x.min_balance, x.created_at, x.state, x.overage, x.operation_type, x.model,
                            x.plan_id as hold_plan, x.pricing_version
                        from ducto.reservations as x
                        where x.account_kind = 'u' and x.account_id = i.user_id and x.number = n.number limit 1
                    ) as h
                    left join ducto.active_pricing as ap on ap.singleton and i.actual > h.reserved
                    left join lateral (
                        select x.free_allowance from ducto.plans as x
                        where i.actual > h.reserved and x.id = coalesce(a.plan_id, ap.default_plan) limit 1
                    ) as pl on true
                    cross join lateral ducto._bill(i.actual, h.reserved, false, h.overage, h.max_settle, 0,
                        a.base - a.held, h.min_balance) as b
                    where a.granted = 0 and not a.has_caps and a.next_due_at > a.now and h.state = 'active'
                        and (select true from ducto.ledger as l
                            where l.account_kind = 'u' collate "POSIX" and l.account_id = i.user_id collate "POSIX"
                                and l.user_id = i.user_id
                                and l.operation = 'deduct' and l.key = i.key limit 1) is null
                    offset 0
                ) as k
                window account as (partition by k.user_id order by k.ord rows unbounded preceding)
            ) as x
        ) as d
        where d.fits
    ), written as (
        insert into ducto.ledger (account_kind, account_id, sequence, event, xid, type, operation, user_id, amount,
            base_delta, balance_after, available_after, actual, charged, unbilled, reservation, reserved, min_balance,
            booked_at, created_at, estimated, suspect, model_given, operation_type, model, pricing_version, plan_id, key,
            usage, metadata)
        select 'u', c.user_id, c.sequence + c.place, c.events + c.place, pg_catalog.pg_current_xact_id(), 'deduction',
            'deduct', c.user_id, -c.charged, -c.charged, c.base - c.charged_so_far,
            c.base - c.charged_so_far - c.held + c.freed_so_far, c.actual, c.charged, c.actual - c.charged, c.number,
            c.reserved, c.min_balance, c.created_at, c.now, ducto._flag(c.p -> 'estimated'), c.suspect,
            c.p ->> 'model' is not null, c.operation_type, coalesce(c.p ->> 'model', c.model),
            coalesce(c.p ->> 'pricing_version', c.pricing_version), c.hold_plan, c.key,
            ducto._present(c.p -> 'usage'), ducto._present(c.p -> 'metadata')
        from chosen as c
    ), settled as (
        update ducto.reservations as h
        set state = 'settled', ended_at = c.now, settled_by = c.sequence + c.place
        from chosen as c where h.ctid = c.place_of_hold
    ), counted as (
        -- The last item of an account has the sums of all.
        update ducto.accounts as a
        set base = a.base - c.charged_so_far, held = a.held - c.freed_so_far, base_held = a.base_held - c.freed_so_far,
            active = a.active - c.items, sequence = a.sequence + c.items, events = a.events + c.items,
            last_op_at = c.now,
            next_due_at = case when a.active = c.items then 'infinity' else a.next_due_at end
        from chosen as c
        where a.ctid = c.place_of_row and c.place = c.items
    )
    select pg_catalog.array_agg(c.ord), pg_catalog.array_agg(ducto._deduct_reply(c.tag, c.sequence + c.place, c.number,
        c.user_id, null, c.charged, c.actual, 0, c.actual - c.charged, greatest(0, c.charged - c.reserved),
        c.base - c.charged_so_far, c.base - c.charged_so_far - c.held + c.freed_so_far, false, c.suspect, null))
    into places, answers
    from chosen as c;
end
$$;

-- Items have the arguments of the verb by name: see `_deduct_fault`. With `p_wait` false an item whose account is
-- locked elsewhere answers {"deferred": true}: send it again by itself.
create or replace function public.ducto_deduct(p_items jsonb, p_wait boolean default true) returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
begin
    if pg_catalog.jsonb_array_length(p_items) = 1 then
        return pg_catalog.jsonb_build_array(ducto._deduct_lone(p_items -> 0, p_wait));
    end if;
    return ducto._deduct_batch(p_items, p_wait);
end
$$;

create or replace function ducto._deduct_batch(p_items jsonb, p_wait boolean) returns jsonb
language plpgsql set jit = off as $$
declare
    v_kinds text[];
    v_ids text[];
    v_places bigint[];
    v_answers jsonb[];
begin
    call ducto._holding_accounts(p_items, v_kinds, v_ids);
    call ducto._deduct_plain(p_items, ducto._lock_accounts(v_kinds, v_ids, p_wait), v_places, v_answers);
    return ducto._serve_rest('deduct', p_items, v_kinds, v_ids, p_wait, v_places, v_answers);
end
$$;
