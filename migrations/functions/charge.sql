-- Charge: reserve and deduct in one step, against what nobody holds.

create or replace function ducto._charge_fault(p jsonb) returns jsonb
language sql stable parallel safe as $$
    select coalesce(
        ducto._amount_fault(p -> 'amount'),
        ducto._text_fault(p -> 'user_id', 'user_id'),
        ducto._key_fault(p -> 'idempotency_key'),
        ducto._text_fault(p -> 'operation_type', 'operation_type'),
        ducto._optional_text_fault(p -> 'team_id', 'team_id'),
        ducto._optional_text_fault(p -> 'feature', 'feature'),
        case when p ->> 'min_balance' is not null then
            ducto._whole_fault(p -> 'min_balance', 'min_balance', -9007199254740991, 9007199254740991) end,
        ducto._notes_fault(p))
$$;

create or replace function ducto._charge_reply(
    p_tag text, p_sequence bigint, p_user_id text, p_team_id text, p_amount bigint, p_actual bigint, p_allowance bigint,
    p_balance bigint, p_available bigint, p_findings jsonb) returns jsonb
language sql stable as $$
    select pg_catalog.jsonb_build_object(
        'transaction_id', ducto._transaction_id(p_tag, p_sequence),
        'user_id', p_user_id,
        'team_id', p_team_id,
        'amount', p_amount,
        'actual', p_actual,
        'allowance_consumed', p_allowance,
        'balance_after', p_balance,
        'available', p_available) || coalesce(p_findings, '{}')
$$;

create or replace function ducto._charge_reply_of(r ducto.ledger, p_tag text) returns jsonb
language plpgsql stable as $$
begin
    return ducto._charge_reply(p_tag, r.sequence, r.user_id, ducto._team_of(r.account_kind, r.account_id), -r.amount,
        r.actual, r.allowance, r.balance_after, r.available_after, r.reply);
end
$$;

create or replace function ducto._charge(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language plpgsql as $$
declare
    r ducto.ledger;
    v_amount bigint := (p ->> 'amount')::bigint;
    v_admission record;
    v_refusal jsonb;
begin
    if p ->> 'idempotency_key' is not null then
        r := ducto._keyed_row(a, p ->> 'user_id', 'charge', p ->> 'idempotency_key');
        if r.sequence is not null then
            return coalesce(
                ducto._mismatch(r.key, array['amount', 'model'],
                    array[r.actual <> v_amount, r.model is distinct from p ->> 'model']),
                ducto._charge_reply_of(r, a.tag) || '{"replayed": true}');
        end if;
    end if;
    select x.* into v_admission from ducto._admit(a, p_now, p ->> 'user_id', v_amount,
        coalesce((p ->> 'min_balance')::bigint, 0), p ->> 'model', p ->> 'feature', null, false,
        ducto._flag(p -> 'force')) as x;
    if v_admission.refusal is not null then
        return v_admission.refusal;
    end if;
    v_refusal := ducto._spend_overflow(a, p ->> 'user_id', p_now, p ->> 'model', v_amount - v_admission.allowance,
        v_amount);
    if v_refusal is not null then
        return v_refusal;
    end if;

    a := ducto._commit(a, p_now);
    r := ducto._new_row(a, 'charge', 'charge', p_now);
    r.user_id := p ->> 'user_id';
    r.actual := v_amount;
    r.charged := v_amount;
    r.allowance := v_admission.allowance;
    r.operation_type := p ->> 'operation_type';
    r.plan_id := v_admission.plan_id;
    r.model := p ->> 'model';
    r.model_given := r.model is not null;
    r.pricing_version := p ->> 'pricing_version';
    r.usage := ducto._present(p -> 'usage');
    r.estimated := ducto._flag(p -> 'estimated');
    r.forced := ducto._flag(p -> 'force');
    r.min_balance := coalesce((p ->> 'min_balance')::bigint, 0);
    r.key := p ->> 'idempotency_key';
    r.metadata := ducto._present(p -> 'metadata');
    r.reply := v_admission.findings;
    call ducto._spend_free(a, r, v_amount - v_admission.allowance);
    call ducto._book_spend(a, r);
    r.available_after := r.balance_after - a.held;
    perform ducto._write(r);
    perform ducto._save(a);
    return ducto._charge_reply_of(r, a.tag);
end
$$;

create or replace function ducto._charge_item(p jsonb, p_wait boolean, p_may_create boolean) returns jsonb
language plpgsql as $$
declare
    v_fault jsonb := ducto._charge_fault(p);
begin
    if v_fault is not null then
        return v_fault;
    end if;
    if p ->> 'team_id' is not null then
        return ducto._run('charge', 't', p ->> 'team_id', p, p_wait, p_may_create);
    end if;
    return ducto._run('charge', 'u', p ->> 'user_id', p, p_wait, p_may_create);
end
$$;

-- The set-based statement: the places of the items that it answered, and the answers.
create or replace procedure ducto._charge_plain(
    p_items jsonb, p_locked text[], inout places bigint[], inout answers jsonb[])
language plpgsql as $$
declare
    v_clock timestamptz := ducto._clock();
begin
    with item as materialized (
        select e.ord, (e.p ->> 'amount')::bigint as amount, coalesce((e.p ->> 'min_balance')::bigint, 0) as min_balance,
            ducto._flag(e.p -> 'force') as is_forced, e.p ->> 'user_id' as user_id, e.p ->> 'idempotency_key' as key, e.p
        from pg_catalog.jsonb_array_elements(p_items) with ordinality as e(p, ord)
        where e.p ->> 'team_id' is null and e.p ->> 'user_id' = any (p_locked) and ducto._charge_fault(e.p) is null
    ), chosen as materialized (
        select d.* from (
            select k.*, pg_catalog.bool_and(
                (k.items = 1 or (k.code is null and (k.key is null or k.same_key = 1)))
                and k.base - k.charged_so_far >= -9007199254740991) over (partition by k.user_id) as fits
            from (
                select y.*, y.base - y.charged_so_far + y.amount as balance, case when not y.is_forced then
                    ducto._admission_code(y.p ->> 'feature', y.plan, y.features, null, 0, null, y.amount, y.amount,
                        y.base - y.charged_so_far + y.amount - y.held, y.min_balance, y.held) end as code
                from (
                    select i.*, a.*, pl.id as plan, pl.features,
                        pg_catalog.row_number() over account as place,
                        pg_catalog.count(*) over (partition by i.user_id) as items,
                        pg_catalog.count(*) over (partition by i.user_id, i.key) as same_key,
                        (pg_catalog.sum(i.amount) over account)::bigint as charged_so_far
                    from item as i
                    cross join lateral (
                        select x.ctid as place_of_row, x.base, x.held, x.sequence, x.events,
                            greatest(x.last_op_at, v_clock) as now, x.next_due_at, x.granted, x.has_caps, x.tag, x.plan_id
                        from ducto.accounts as x where x.account_kind = 'u' and x.account_id = i.user_id limit 1
                    ) as a
                    left join ducto.active_pricing as ap on ap.singleton
                    left join lateral (
                        select x.* from ducto.plans as x where x.id = coalesce(a.plan_id, ap.default_plan) limit 1
                    ) as pl on true
                    where a.granted = 0 and not a.has_caps and a.next_due_at > a.now
                        and coalesce(pl.free_allowance, 0) = 0
                        and (select true from ducto.ledger as l
                            where l.account_kind = 'u' collate "POSIX" and l.account_id = i.user_id collate "POSIX"
                                and l.user_id = i.user_id
                                and l.operation = 'charge' and l.key = i.key limit 1) is null
                    window account as (partition by i.user_id order by i.ord rows unbounded preceding)
                ) as y offset 0
            ) as k
        ) as d
        where d.fits
    ), written as (
        insert into ducto.ledger (account_kind, account_id, sequence, event, xid, type, operation, user_id, amount,
            base_delta, balance_after, available_after, actual, charged, min_balance, booked_at, created_at, estimated,
            forced, model_given, operation_type, model, pricing_version, plan_id, key, usage, metadata)
        select 'u', c.user_id, c.sequence + c.place, c.events + c.place, pg_catalog.pg_current_xact_id(), 'charge',
            'charge', c.user_id, -c.amount, -c.amount, c.base - c.charged_so_far, c.base - c.charged_so_far - c.held,
            c.amount, c.amount, c.min_balance, c.now, c.now, ducto._flag(c.p -> 'estimated'), c.is_forced,
            c.p ->> 'model' is not null, c.p ->> 'operation_type', c.p ->> 'model', c.p ->> 'pricing_version', c.plan,
            c.key, ducto._present(c.p -> 'usage'), ducto._present(c.p -> 'metadata')
        from chosen as c where c.code is null
    ), counted as (
        -- The last item of an account has the sums of all.
        update ducto.accounts as a
        set base = a.base - c.charged_so_far, sequence = a.sequence + c.items, events = a.events + c.items,
            last_op_at = c.now
        from chosen as c
        where a.ctid = c.place_of_row and c.place = c.items and c.code is null
    )
    select pg_catalog.array_agg(c.ord), pg_catalog.array_agg(
        case when c.code is null then ducto._charge_reply(c.tag, c.sequence + c.place, c.user_id, null, c.amount, c.amount,
            0, c.base - c.charged_so_far, c.base - c.charged_so_far - c.held, null)
        else ducto._admission_refusal(c.code, c.p ->> 'feature', c.plan, null, 0, null, c.amount, c.balance - c.held,
            c.balance, c.min_balance) end)
    into places, answers
    from chosen as c;
end
$$;

-- Items have the arguments of the verb by name: see `_charge_fault`. With `p_wait` false an item whose account is
-- locked elsewhere answers {"deferred": true}: send it again by itself.
create or replace function public.ducto_charge(p_items jsonb, p_wait boolean default true) returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
begin
    if pg_catalog.jsonb_array_length(p_items) = 1 then
        return pg_catalog.jsonb_build_array(ducto._charge_item(p_items -> 0, p_wait, true));
    end if;
    return ducto._charge_batch(p_items, p_wait);
end
$$;

create or replace function ducto._charge_batch(p_items jsonb, p_wait boolean) returns jsonb
language plpgsql set jit = off as $$
declare
    v_kinds text[];
    v_ids text[];
    v_places bigint[];
    v_answers jsonb[];
begin
    call ducto._named_accounts(p_items, v_kinds, v_ids);
    call ducto._charge_plain(p_items, ducto._lock_accounts(v_kinds, v_ids, p_wait), v_places, v_answers);
    return ducto._serve_rest('charge', p_items, v_kinds, v_ids, p_wait, v_places, v_answers);
end
$$;
