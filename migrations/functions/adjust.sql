-- Adjust: an operator corrects a balance by hand.

-- Money that leaves without being a spend: no caps, no plan, only the floor.
create or replace function ducto._check_debit(a ducto.accounts, p_amount bigint, p_min_balance bigint) returns jsonb
language sql stable as $$
    select case when a.base + a.granted - a.held - p_amount < p_min_balance then
        ducto._refusal('insufficient_credits', p_amount || ' credits are needed and ' || (a.base + a.granted - a.held)
            || ' are available, of which ' || p_min_balance || ' must be left.',
            pg_catalog.jsonb_build_object('required', p_amount, 'available', a.base + a.granted - a.held,
                'balance', a.base + a.granted, 'min_balance', p_min_balance)) end
$$;

create or replace function ducto._adjust(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language plpgsql as $$
declare
    r ducto.ledger := ducto._new_row(a, 'adjustment', 'adjust', p_now);
    v_earlier ducto.ledger;
    v_amount bigint := (p ->> 'amount')::bigint;
    v_is_credit boolean := p ->> 'direction' = 'credit';
    v_signed bigint := case when v_is_credit then v_amount else -v_amount end;
    v_floor bigint := (p ->> 'min_balance')::bigint;
    v_refusal jsonb;
    v_reply jsonb;
begin
    v_earlier := ducto._keyed_row(a, r.user_id, 'adjust', p ->> 'idempotency_key');
    if v_earlier.sequence is not null then
        return coalesce(ducto._mismatch(v_earlier.key, array['amount'], array[v_earlier.amount <> v_signed]),
            ducto._replayed(v_earlier));
    end if;
    if v_is_credit then
        if a.base + a.granted > 9007199254740991 - v_amount then
            return ducto._refusal('overflow', 'The balance would exceed 2^53-1 credits.');
        end if;
    else
        v_refusal := case when not ducto._flag(p -> 'force') then ducto._check_debit(a, v_amount, v_floor) end;
        if v_refusal is not null then
            return v_refusal;
        end if;
        if a.base + a.granted - v_amount < -9007199254740991 then
            return ducto._refusal('overflow', 'The debt would exceed 2^53-1 credits.');
        end if;
    end if;

    a := ducto._commit(a, p_now);
    if v_is_credit then
        call ducto._receive(a, r, v_amount, null);
    else
        call ducto._spend_free(a, r, v_amount);
    end if;
    r.forced := ducto._flag(p -> 'force');
    r.min_balance := v_floor;
    r.key := p ->> 'idempotency_key';
    r.metadata := ducto._present(p -> 'metadata');
    call ducto._append(a, r);
    v_reply := pg_catalog.jsonb_build_object('transaction_id', ducto._transaction_id(a.tag, r.sequence),
        'user_id', a.account_id, 'amount', v_signed, 'new_balance', r.balance_after);
    r.reply := case when r.key is not null then v_reply end;
    perform ducto._write(r);
    perform ducto._save(a);
    return v_reply;
end
$$;

create or replace function public.ducto_adjust(
    p_user_id text, p_amount bigint, p_direction text, p_metadata jsonb default null, p_min_balance bigint default 0,
    p_force boolean default false, p_idempotency_key text default null) returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    p jsonb := pg_catalog.jsonb_build_object('user_id', p_user_id, 'amount', p_amount, 'direction', p_direction,
        'metadata', p_metadata, 'min_balance', p_min_balance, 'force', p_force, 'idempotency_key', p_idempotency_key);
    v_fault jsonb := coalesce(
        ducto._amount_fault(p -> 'amount', 'amount', 1),
        ducto._text_fault(p -> 'user_id', 'user_id'),
        ducto._key_fault(p -> 'idempotency_key'),
        ducto._choice_fault(p -> 'direction', 'direction', array['credit', 'debit']),
        ducto._whole_fault(p -> 'min_balance', 'min_balance', -9007199254740991, 9007199254740991),
        ducto._metadata_fault(p -> 'metadata'));
begin
    return coalesce(v_fault, ducto._run('adjust', 'u', p_user_id, p));
end
$$;
