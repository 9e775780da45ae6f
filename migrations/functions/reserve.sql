-- Reserve: hold what a call may cost, in full or not at all.

create or replace function ducto._reserve_fault(p jsonb) returns jsonb
language sql stable parallel safe as $$
    select coalesce(
        ducto._amount_fault(p -> 'amount'),
        ducto._text_fault(p -> 'user_id', 'user_id'),
        ducto._key_fault(p -> 'idempotency_key'),
        ducto._text_fault(p -> 'operation_type', 'operation_type'),
        ducto._optional_text_fault(p -> 'model', 'model'),
        ducto._optional_text_fault(p -> 'team_id', 'team_id'),
        ducto._optional_text_fault(p -> 'feature', 'feature'),
        ducto._optional_text_fault(p -> 'pricing_version', 'pricing_version'),
        ducto._optional_text_fault(p -> 'fingerprint', 'fingerprint'),
        ducto._optional_text_fault(p -> 'attempt_id', 'attempt_id'),
        case when p ->> 'min_balance' is not null then
            ducto._whole_fault(p -> 'min_balance', 'min_balance', -9007199254740991, 9007199254740991) end,
        case when p ->> 'ttl_seconds' is not null then
            ducto._whole_fault(p -> 'ttl_seconds', 'ttl_seconds', 1, 86400) end,
        case when p ->> 'grace_seconds' is not null then
            ducto._whole_fault(p -> 'grace_seconds', 'grace_seconds', 0, 3600) end,
        case when p ->> 'overage' is not null then
            ducto._choice_fault(p -> 'overage', 'overage', array['debt', 'clamp', 'reject']) end,
        case when p ->> 'max_settle' is not null then ducto._amount_fault(p -> 'max_settle', 'max_settle') end,
        case when p ->> 'max_concurrent' is not null then
            ducto._whole_fault(p -> 'max_concurrent', 'max_concurrent', 0, 9007199254740991) end,
        ducto._metadata_fault(p -> 'metadata'))
$$;

create or replace function ducto._reserve_looks_sound(p jsonb) returns boolean
language sql immutable parallel safe as $$
    select ducto._looks_sound(p, '
        $.amount.type() == "number" && $.amount >= 0 && $.amount <= 9007199254740991
        && $.user_id.type() == "string" && $.operation_type.type() == "string"
        && !($.idempotency_key.type() != "string") && !($.model.type() != "string") && !($.team_id.type() != "string")
        && !($.feature.type() != "string") && !($.pricing_version.type() != "string")
        && !($.fingerprint.type() != "string") && !($.attempt_id.type() != "string")
        && !($.min_balance.type() != "number") && !($.min_balance < -9007199254740991)
        && !($.min_balance > 9007199254740991)
        && !($.ttl_seconds.type() != "number") && !($.ttl_seconds < 1) && !($.ttl_seconds > 86400)
        && !($.grace_seconds.type() != "number") && !($.grace_seconds < 0) && !($.grace_seconds > 3600)
        && !($.overage.type() != "string") && !($.overage != "debt" && $.overage != "clamp" && $.overage != "reject")
        && !($.max_settle.type() != "number") && !($.max_settle < 0) && !($.max_settle > 9007199254740991)
        && !($.max_concurrent.type() != "number") && !($.max_concurrent < 0) && !($.max_concurrent > 9007199254740991)
        && !($.metadata.type() != "object")')
$$;

-- However often it is told, the first answer: what the reservation's row kept of it.
create or replace function ducto._reserve_reply(
    p_tag text, p_number bigint, p_user_id text, p_team_id text, p_amount bigint, p_allowance_held bigint,
    p_balance bigint, p_available bigint, p_first_expiry timestamptz, p_plan_id text, p_pricing_version text,
    p_findings jsonb) returns jsonb
language sql stable as $$
    select pg_catalog.jsonb_build_object(
        'reservation_id', ducto._reservation_id(p_tag, p_number),
        'user_id', p_user_id,
        'team_id', p_team_id,
        'amount', p_amount,
        'held', p_amount - p_allowance_held,
        'balance', p_balance,
        'available', p_available,
        'state', 'active',
        'expires_at', p_first_expiry,
        'plan_id', p_plan_id,
        'pricing_version', p_pricing_version) || coalesce(p_findings, '{}')
$$;

create or replace function ducto._reserve_reply_of(h ducto.reservations, p_tag text) returns jsonb
language plpgsql stable as $$
begin
    return ducto._reserve_reply(p_tag, h.number, h.user_id, ducto._team_of(h.account_kind, h.account_id), h.amount,
        h.allowance_held, h.balance_after, h.available_after,
        h.created_at + pg_catalog.make_interval(secs => h.ttl_seconds), h.plan_id, h.pricing_version, h.findings);
end
$$;

-- The answer to a key that was used before, with what has become of the reservation since; null for a new key. To the
-- attempt that made the reservation it is no replay: that attempt did not hear its first answer.
create or replace function ducto._reserved_before(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language plpgsql stable as $$
declare
    h ducto.reservations;
    v_refusal jsonb;
begin
    select r.* into h from ducto.reservations as r
    where r.account_kind = a.account_kind collate "POSIX" and r.account_id = a.account_id collate "POSIX"
        and r.user_id = p ->> 'user_id'
        and r.key = p ->> 'idempotency_key';
    if not found then
        return null;
    end if;
    -- A fingerprint of the request stands in for the amount: an estimate may differ between a call and its retry.
    v_refusal := ducto._mismatch(h.key, array['amount', 'fingerprint', 'operation_type', 'model'], array[
        case when h.fingerprint is null then h.amount end
            is distinct from case when p ->> 'fingerprint' is null then (p ->> 'amount')::bigint end,
        h.fingerprint is distinct from p ->> 'fingerprint',
        h.operation_type is distinct from p ->> 'operation_type',
        h.model is distinct from p ->> 'model']);
    return coalesce(v_refusal, ducto._reserve_reply_of(h, a.tag) || pg_catalog.jsonb_build_object(
        'replayed', (h.attempt_id = p ->> 'attempt_id') is not true,
        'state', case when h.state = 'active' and h.due_at <= p_now then 'expired' else h.state end));
end
$$;

create or replace function ducto._reserve(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language plpgsql as $$
declare
    h ducto.reservations;
    v_amount bigint := (p ->> 'amount')::bigint;
    v_admission record;
    v_earlier jsonb;
begin
    if p ->> 'idempotency_key' is not null then
        v_earlier := ducto._reserved_before(a, p_now, p);
        if v_earlier is not null then
            return v_earlier;
        end if;
    end if;
    select x.* into v_admission from ducto._admit(a, p_now, p ->> 'user_id', v_amount,
        coalesce((p ->> 'min_balance')::bigint, 5), p ->> 'model', p ->> 'feature', (p ->> 'max_concurrent')::bigint,
        true, false) as x;
    if v_admission.refusal is not null then
        return v_admission.refusal;
    end if;

    a := ducto._commit(a, p_now);
    a.holds_made := a.holds_made + 1;
    a.events := a.events + 1;
    h.account_kind := a.account_kind;
    h.account_id := a.account_id;
    h.number := a.holds_made;
    h.event := a.events;
    h.xid := pg_catalog.pg_current_xact_id();
    h.user_id := p ->> 'user_id';
    h.amount := v_amount;
    h.allowance_held := v_admission.allowance;
    h.base_held := v_amount - v_admission.allowance;
    h.operation_type := p ->> 'operation_type';
    h.model := p ->> 'model';
    h.plan_id := v_admission.plan_id;
    h.pricing_version := p ->> 'pricing_version';
    h.overage := coalesce(p ->> 'overage', 'debt');
    h.min_balance := coalesce((p ->> 'min_balance')::bigint, 5);
    h.max_settle := coalesce((p ->> 'max_settle')::bigint, least(greatest(10 * v_amount, 1000000), 9007199254740991));
    h.ttl_seconds := coalesce((p ->> 'ttl_seconds')::integer, 600);
    h.grace_seconds := coalesce((p ->> 'grace_seconds')::integer, 60);
    h.created_at := p_now;
    h.expires_at := p_now + pg_catalog.make_interval(secs => h.ttl_seconds);
    h.due_at := h.expires_at + pg_catalog.make_interval(secs => h.grace_seconds);
    h.key := p ->> 'idempotency_key';
    h.fingerprint := p ->> 'fingerprint';
    h.attempt_id := p ->> 'attempt_id';
    h.metadata := ducto._present(p -> 'metadata');
    h.findings := v_admission.findings;
    h.state := 'active';
    h.balance_after := a.base + a.granted;
    if a.granted > 0 then
        h := ducto._hold_of_grants(a, h);
    end if;
    a := ducto._count_hold(a, h, 1);
    a.next_due_at := least(a.next_due_at, h.due_at);
    h.available_after := h.balance_after - a.held;
    insert into ducto.reservations values (h.*);
    perform ducto._save(a);
    return ducto._reserve_reply_of(h, a.tag);
end
$$;

-- Let grants, by expiry, hold what they can of the money; the base holds the rest.
create or replace function ducto._hold_of_grants(a ducto.accounts, h ducto.reservations) returns ducto.reservations
language plpgsql as $$
declare
    g ducto.grants;
    v_taken bigint;
begin
    for g in
        select x.* from ducto.grants as x
        where x.account_kind = a.account_kind and x.account_id = a.account_id and x.remaining > 0
        order by x.expires_at, x.number
    loop
        v_taken := least(g.remaining - g.held, h.base_held);
        if v_taken > 0 then
            update ducto.grants as x set held = x.held + v_taken
            where x.account_kind = a.account_kind and x.account_id = a.account_id and x.number = g.number;
            h.grant_holds := coalesce(h.grant_holds, '[]')
                || pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_array(g.number, v_taken));
            h.base_held := h.base_held - v_taken;
        end if;
    end loop;
    return h;
end
$$;

create or replace function ducto._reserve_item(p jsonb, p_wait boolean, p_may_create boolean) returns jsonb
language plpgsql as $$
declare
    v_fault jsonb;
begin
    if not ducto._reserve_looks_sound(p) then
        v_fault := ducto._reserve_fault(p);
        if v_fault is not null then
            return v_fault;
        end if;
    end if;
    if p ->> 'team_id' is not null then
        return ducto._run('reserve', 't', p ->> 'team_id', p, p_wait, p_may_create);
    end if;
    return ducto._run('reserve', 'u', p ->> 'user_id', p, p_wait, p_may_create);
end
$$;

-- A lone call for a plain account, which most calls are: what the set-based statement does, in small steps, since
-- setting that up takes longer than to run it once. Whatever else there is goes the way of `_reserve_item`, which meets a
-- row that is locked already.
create or replace function ducto._reserve_lone(p jsonb, p_wait boolean) returns jsonb
language plpgsql as $$
declare
    v_user_id text := p ->> 'user_id';
    v_key text := p ->> 'idempotency_key';
    v_amount bigint;
    v_min_balance bigint;
    v_ttl integer;
    v_grace integer;
    v_base bigint;
    v_held bigint;
    v_active bigint;
    v_number bigint;
    v_event bigint;
    v_tag text;
    v_now timestamptz;
    v_next_due_at timestamptz;
    v_ends timestamptz;
    v_is_plain boolean;
    v_plan_id text;
    v_features text[];
    v_limit bigint;
    v_code text;
begin
    if p ->> 'team_id' is not null or not ducto._reserve_looks_sound(p) then
        return ducto._reserve_item(p, p_wait, true);
    end if;
    select x.base, x.held, x.active, x.holds_made + 1, x.events + 1, x.tag, x.plan_id, x.last_op_at, x.next_due_at,
        x.granted = 0 and not x.has_caps
    into v_base, v_held, v_active, v_number, v_event, v_tag, v_plan_id, v_now, v_next_due_at, v_is_plain
    from ducto.accounts as x where x.account_kind = 'u' and x.account_id = v_user_id for no key update skip locked;
    if v_is_plain is not true then
        return ducto._reserve_item(p, p_wait, true);
    end if;
    -- What follows sees what was written before the lock was had.
    select greatest(v_now, ducto._clock()), pl.id, pl.features, coalesce((p ->> 'max_concurrent')::bigint, pl.max_concurrent),
        (p ->> 'amount')::bigint, coalesce((p ->> 'min_balance')::bigint, 5), coalesce((p ->> 'ttl_seconds')::integer, 600),
        coalesce((p ->> 'grace_seconds')::integer, 60),
        coalesce(pl.free_allowance, 0) = 0 and (select true from ducto.reservations as r
            where r.account_kind = 'u' collate "POSIX" and r.account_id = v_user_id collate "POSIX"
                and r.user_id = v_user_id and r.key = v_key limit 1) is null
    into v_now, v_plan_id, v_features, v_limit, v_amount, v_min_balance, v_ttl, v_grace, v_is_plain
    from (select coalesce(v_plan_id,
        (select ap.default_plan from ducto.active_pricing as ap where ap.singleton)) as id) as own
    left join ducto.plans as pl on pl.id = own.id;
    if not v_is_plain or v_next_due_at <= v_now then
        return ducto._reserve_item(p, p_wait, true);
    end if;
    v_code := ducto._admission_code(p ->> 'feature', v_plan_id, v_features, v_limit, v_active, null, v_amount, v_amount,
        v_base - v_held, v_min_balance, v_held);
    if v_code is not null then
        return ducto._admission_refusal(v_code, p ->> 'feature', v_plan_id, v_limit, v_active, null, v_amount,
            v_base - v_held, v_base, v_min_balance);
    end if;
    v_held := v_held + v_amount;
    v_ends := v_now + pg_catalog.make_interval(secs => v_ttl + v_grace);
    insert into ducto.reservations (account_kind, account_id, number, event, xid, user_id, amount, allowance_held,
        base_held, operation_type, model, plan_id, pricing_version, overage, min_balance, max_settle, ttl_seconds,
        grace_seconds, created_at, expires_at, due_at, key, fingerprint, attempt_id, metadata, state, balance_after,
        available_after)
    values ('u', v_user_id, v_number, v_event, pg_catalog.pg_current_xact_id(), v_user_id, v_amount, 0, v_amount,
        p ->> 'operation_type', p ->> 'model', v_plan_id, p ->> 'pricing_version', coalesce(p ->> 'overage', 'debt'),
        v_min_balance,
        coalesce((p ->> 'max_settle')::bigint, least(greatest(10 * v_amount, 1000000), 9007199254740991)),
        v_ttl, v_grace, v_now, v_now + pg_catalog.make_interval(secs => v_ttl), v_ends, v_key, p ->> 'fingerprint',
        p ->> 'attempt_id', ducto._present(p -> 'metadata'), 'active', v_base, v_base - v_held);
    update ducto.accounts as a
    set held = v_held, base_held = a.base_held + v_amount, active = v_active + 1, holds_made = v_number, events = v_event,
        last_op_at = v_now, next_due_at = least(v_next_due_at, v_ends)
    where a.account_kind = 'u' and a.account_id = v_user_id;
    return ducto._reserve_reply(v_tag, v_number, v_user_id, null, v_amount, 0, v_base, v_base - v_held,
        v_now + pg_catalog.make_interval(secs => v_ttl), v_plan_id, p ->> 'pricing_version', null);
end
$$;

-- The set-based statement: the places of the items that it answered, and the answers.
create or replace procedure ducto._reserve_plain(
    p_items jsonb, p_locked text[], inout places bigint[], inout answers jsonb[])
language plpgsql as $$
declare
    v_clock timestamptz := ducto._clock();
begin
    with item as materialized (
        select e.ord, (e.p ->> 'amount')::bigint as amount, coalesce((e.p ->> 'min_balance')::bigint, 5) as min_balance,
            coalesce((e.p ->> 'ttl_seconds')::integer, 600) as ttl,
            coalesce((e.p ->> 'grace_seconds')::integer, 60) as grace,
            e.p ->> 'user_id' as user_id, e.p ->> 'idempotency_key' as key, e.p
        from pg_catalog.jsonb_array_elements(p_items) with ordinality as e(p, ord)
        where e.p ->> 'team_id' is null and e.p ->> 'user_id' = any (p_locked) and ducto._reserve_fault(e.p) is null
    ), chosen as materialized (
        select d.*, d.now + pg_catalog.make_interval(secs => d.ttl) as expires_at,
            d.base - d.held - d.before - d.amount as available
        from (
            select k.*, pg_catalog.bool_and(k.items = 1 or (k.code is null and (k.key is null or k.same_key = 1)))
                    over whole as fits,
                pg_catalog.min(k.ttl + k.grace) over whole as shortest
            from (
                select y.*, ducto._admission_code(y.p ->> 'feature', y.plan, y.features, y.most, y.active + y.place - 1,
                    null, y.amount, y.amount, y.base - y.held - y.before, y.min_balance, y.held + y.before) as code
                from (
                    select i.*, a.*, pl.id as plan, pl.features,
                        coalesce((i.p ->> 'max_concurrent')::bigint, pl.max_concurrent) as most,
                        pg_catalog.row_number() over account as place,
                        pg_catalog.count(*) over (partition by i.user_id) as items,
                        pg_catalog.count(*) over (partition by i.user_id, i.key) as same_key,
                        coalesce(pg_catalog.sum(i.amount)
                            over (account rows between unbounded preceding and 1 preceding), 0)::bigint as before
                    from item as i
                    cross join lateral (
                        select x.ctid as place_of_row, x.base, x.held, x.active, x.holds_made, x.events,
                            greatest(x.last_op_at, v_clock) as now, x.next_due_at, x.granted, x.has_caps, x.tag, x.plan_id
                        from ducto.accounts as x where x.account_kind = 'u' and x.account_id = i.user_id limit 1
                    ) as a
                    left join ducto.active_pricing as ap on ap.singleton
                    left join lateral (
                        select x.* from ducto.plans as x where x.id = coalesce(a.plan_id, ap.default_plan) limit 1
                    ) as pl on true
                    where a.granted = 0 and not a.has_caps and a.next_due_at > a.now
                        and coalesce(pl.free_allowance, 0) = 0
                        and (select true from ducto.reservations as r
                            where r.account_kind = 'u' collate "POSIX" and r.account_id = i.user_id collate "POSIX"
                                and r.user_id = i.user_id and r.key = i.key limit 1) is null
                    window account as (partition by i.user_id order by i.ord)
                ) as y offset 0
            ) as k
            window whole as (partition by k.user_id)
        ) as d
        where d.fits
    ), made as (
        insert into ducto.reservations (account_kind, account_id, number, event, xid, user_id, amount, allowance_held,
            base_held, operation_type, model, plan_id, pricing_version, overage, min_balance, max_settle, ttl_seconds,
            grace_seconds, created_at, expires_at, due_at, key, fingerprint, attempt_id, metadata, state, balance_after,
            available_after)
        select 'u', c.user_id, c.holds_made + c.place, c.events + c.place, pg_catalog.pg_current_xact_id(), c.user_id,
            c.amount, 0, c.amount, c.p ->> 'operation_type', c.p ->> 'model', c.plan, c.p ->> 'pricing_version',
            coalesce(c.p ->> 'overage', 'debt'), c.min_balance,
            coalesce((c.p ->> 'max_settle')::bigint, least(greatest(10 * c.amount, 1000000), 9007199254740991)),
            c.ttl, c.grace, c.now, c.expires_at, c.expires_at + pg_catalog.make_interval(secs => c.grace), c.key,
            c.p ->> 'fingerprint', c.p ->> 'attempt_id', ducto._present(c.p -> 'metadata'), 'active', c.base, c.available
        from chosen as c where c.code is null
    ), counted as (
        -- The last item of an account has the sums of all.
        update ducto.accounts as a
        set held = a.held + c.before + c.amount, base_held = a.base_held + c.before + c.amount,
            active = a.active + c.items, holds_made = a.holds_made + c.items, events = a.events + c.items,
            last_op_at = c.now, next_due_at = least(a.next_due_at, c.now + pg_catalog.make_interval(secs => c.shortest))
        from chosen as c
        where a.ctid = c.place_of_row and c.place = c.items and c.code is null
    )
    select pg_catalog.array_agg(c.ord), pg_catalog.array_agg(
        case when c.code is null then ducto._reserve_reply(c.tag, c.holds_made + c.place, c.user_id, null, c.amount, 0,
            c.base, c.available, c.expires_at, c.plan, c.p ->> 'pricing_version', null)
        else ducto._admission_refusal(c.code, c.p ->> 'feature', c.plan, c.most, c.active + c.place - 1, null, c.amount,
            c.available + c.amount, c.base, c.min_balance) end)
    into places, answers
    from chosen as c;
end
$$;

-- Items have the arguments of the verb by name: see `_reserve_fault`. With `p_wait` false an item whose account is
-- locked elsewhere answers {"deferred": true}: send it again by itself.
create or replace function public.ducto_reserve(p_items jsonb, p_wait boolean default true) returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
begin
    if pg_catalog.jsonb_array_length(p_items) = 1 then
        return pg_catalog.jsonb_build_array(ducto._reserve_lone(p_items -> 0, p_wait));
    end if;
    return ducto._reserve_batch(p_items, p_wait);
end
$$;

create or replace function ducto._reserve_batch(p_items jsonb, p_wait boolean) returns jsonb
language plpgsql set jit = off as $$
declare
    v_kinds text[];
    v_ids text[];
    v_places bigint[];
    v_answers jsonb[];
begin
    call ducto._named_accounts(p_items, v_kinds, v_ids);
    call ducto._reserve_plain(p_items, ducto._lock_accounts(v_kinds, v_ids, p_wait), v_places, v_answers);
    return ducto._serve_rest('reserve', p_items, v_kinds, v_ids, p_wait, v_places, v_answers);
end
$$;
