-- Add: credits come in. Debt is repaid first, the rest becomes a grant that expires, or base.

create or replace function ducto._add(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language plpgsql as $$
declare
    r ducto.ledger := ducto._new_row(a, p ->> 'type', 'add', p_now);
    v_earlier ducto.ledger;
    v_amount bigint := (p ->> 'amount')::bigint;
    v_expires_at timestamptz := (p ->> 'expires_at')::timestamptz;
    v_reply jsonb;
begin
    v_earlier := ducto._keyed_row(a, r.user_id, 'add', p ->> 'idempotency_key');
    if v_earlier.sequence is not null then
        return coalesce(ducto._mismatch(v_earlier.key, array['amount'], array[v_earlier.amount <> v_amount]),
            ducto._replayed(v_earlier));
    end if;
    -- After the keys: a retry may come when the grant has expired.
    if v_expires_at <= p_now then
        return ducto._refusal('invalid_argument',
            'expires_at must be in the future, not ' || ducto._iso(v_expires_at) || '.');
    end if;
    if a.base + a.granted > 9007199254740991 - v_amount then
        return ducto._refusal('overflow', 'The balance would exceed 2^53-1 credits.');
    end if;
    if r.type = 'purchase' and a.lifetime_purchased > 9007199254740991 - v_amount then
        return ducto._refusal('overflow', 'The credits purchased would exceed 2^53-1.');
    end if;

    a := ducto._commit(a, p_now);
    call ducto._receive(a, r, v_amount, v_expires_at);
    if r.type = 'purchase' then
        a.lifetime_purchased := a.lifetime_purchased + v_amount;
    end if;
    r.expires_at := v_expires_at;
    r.key := p ->> 'idempotency_key';
    r.metadata := ducto._present(p -> 'metadata');
    call ducto._append(a, r);
    v_reply := pg_catalog.jsonb_build_object(
        'transaction_id', ducto._transaction_id(a.tag, r.sequence),
        'user_id', case when a.account_kind = 'u' then a.account_id end,
        'team_id', ducto._team_of(a.account_kind, a.account_id),
        'amount', v_amount,
        'new_balance', r.balance_after,
        'lifetime_purchased', a.lifetime_purchased);
    r.reply := case when r.key is not null then v_reply end;
    perform ducto._write(r);
    perform ducto._save(a);
    return v_reply;
end
$$;

create or replace function public.ducto_add(
    p_account_kind text, p_account_id text, p_amount bigint, p_type text default 'adjustment',
    p_metadata jsonb default null, p_expires_at timestamptz default null, p_idempotency_key text default null)
returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    p jsonb := pg_catalog.jsonb_build_object('id', p_account_id, 'amount', p_amount, 'type', p_type, 'metadata',
        p_metadata, 'expires_at', p_expires_at, 'idempotency_key', p_idempotency_key, 'kind', p_account_kind);
    v_fault jsonb := coalesce(
        ducto._choice_fault(p -> 'kind', 'account_kind', array['user', 'team']),
        ducto._amount_fault(p -> 'amount', 'amount', 1),
        ducto._text_fault(p -> 'id', p_account_kind || '_id'),
        ducto._key_fault(p -> 'idempotency_key'),
        ducto._choice_fault(p -> 'type', 'type', array['purchase', 'grant', 'bonus', 'adjustment']),
        case when not pg_catalog.isfinite(p_expires_at) then ducto._refusal('invalid_argument',
            'expires_at must be an aware datetime (with a time zone), not ' || p_expires_at || '.') end,
        ducto._metadata_fault(p -> 'metadata'));
begin
    return coalesce(v_fault, ducto._run('add', pg_catalog.left(p_account_kind, 1), p_account_id, p));
end
$$;
