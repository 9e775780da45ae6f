-- The monthly allowance: asking for it, and booking use of it without a price in credits.

create or replace function ducto._check_allowance(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language plpgsql as $$
declare
    v_plan ducto.plans := ducto._plan_of(a.plan_id);
    v_use ducto.allowance_use;
    v_month record;
begin
    select u.* into v_use from ducto.allowance_use as u
    where u.account_kind = a.account_kind and u.account_id = a.account_id and u.month = ducto._month(p_now);
    v_month := ducto._window('monthly', p_now);
    return pg_catalog.jsonb_build_object(
        'user_id', a.account_id,
        'plan_id', v_plan.id,
        'allowance', coalesce(v_plan.free_allowance, 0),
        'used', coalesce(v_use.used, 0),
        'held', coalesce(v_use.held, 0),
        'remaining', ducto._allowance_left(a, v_plan.free_allowance, p_now),
        'period_start', v_month.window_start,
        'period_end', v_month.window_end,
        'stable_until', least(ducto._stable_until(a), v_month.window_end));
end
$$;

create or replace function public.ducto_check_allowance(p_user_id text) returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
begin
    return coalesce(ducto._text_fault(pg_catalog.to_jsonb(p_user_id), 'user_id'),
        ducto._read('check_allowance', 'u', p_user_id, null));
end
$$;

-- Book use, up to what is left of the month. Allowance is per account: the plan must only exist.
create or replace function ducto._allowance(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language plpgsql as $$
declare
    r ducto.ledger;
    v_amount bigint := (p ->> 'amount')::bigint;
    v_used bigint;
    v_plan ducto.plans;
    v_refusal jsonb;
begin
    r := ducto._keyed_row(a, a.account_id, 'allowance', p ->> 'idempotency_key');
    if r.sequence is not null then
        return coalesce(
            ducto._mismatch(r.key, array['amount'], array[(r.reply ->> 'asked')::bigint <> v_amount]),
            '{"value": null, "replayed": true}');
    end if;
    if not exists (select from ducto.plans as x where x.id = p ->> 'plan_id') then
        return ducto._refusal('plan_not_found', 'There is no plan ' || ducto._quoted(p ->> 'plan_id') || '.');
    end if;
    v_plan := ducto._plan_of(a.plan_id);
    v_used := least(v_amount, ducto._allowance_left(a, v_plan.free_allowance, p_now));
    v_refusal := ducto._spend_overflow(a, a.account_id, p_now, null, 0, v_used);
    if v_refusal is not null then
        return v_refusal;
    end if;

    a := ducto._commit(a, p_now);
    r := ducto._new_row(a, 'allowance', 'allowance', p_now);
    r.actual := v_used;
    r.charged := v_used;
    r.allowance := v_used;
    r.operation_type := 'allowance';
    r.plan_id := p ->> 'plan_id';
    r.key := p ->> 'idempotency_key';
    r.reply := case when r.key is not null then pg_catalog.jsonb_build_object('asked', v_amount) end;
    call ducto._book_spend(a, r);
    perform ducto._write(r);
    perform ducto._save(a);
    return '{"value": null}';
end
$$;

create or replace function public.ducto_use_allowance(
    p_user_id text, p_plan_id text, p_amount bigint, p_idempotency_key text default null) returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    p jsonb := pg_catalog.jsonb_build_object('user_id', p_user_id, 'plan_id', p_plan_id, 'amount', p_amount,
        'idempotency_key', p_idempotency_key);
    v_fault jsonb := coalesce(
        ducto._amount_fault(p -> 'amount'),
        ducto._text_fault(p -> 'user_id', 'user_id'),
        ducto._text_fault(p -> 'plan_id', 'plan_id'),
        ducto._key_fault(p -> 'idempotency_key'));
begin
    return coalesce(v_fault, ducto._run('allowance', 'u', p_user_id, p));
end
$$;
