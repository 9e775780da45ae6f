-- Charge: reserve and deduct in one step, against what nobody holds.

create or replace function ducto._charge_fault(p jsonb) returns jsonb
language sql immutable parallel safe as $$
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

create or replace function ducto._charge_reply(r ducto.ledger, p_tag text) returns jsonb
language sql immutable as $$
    select pg_catalog.jsonb_build_object(
        'transaction_id', ducto._transaction_id(p_tag, r.sequence),
        'user_id', r.user_id,
        'team_id', ducto._team_of(r.account_kind, r.account_id),
        'amount', -r.amount,
        'actual', r.actual,
        'allowance_consumed', r.allowance,
        'balance_after', r.balance_after,
        'available', r.available_after) || coalesce(r.reply, '{}')
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
                ducto._charge_reply(r, a.tag) || '{"replayed": true}');
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
    return ducto._charge_reply(r, a.tag);
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

create or replace function public.ducto_charge(p_items jsonb, p_wait boolean default true) returns jsonb
language plpgsql volatile security definer set search_path = '' as $$
begin
    return (select pg_catalog.jsonb_agg(ducto._charge_item(e.item, p_wait, true) order by e.ord)
        from pg_catalog.jsonb_array_elements(p_items) with ordinality as e(item, ord));
end
$$;
