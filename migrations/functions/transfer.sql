-- Transfer: credits move between two users, as two rows of sum 0 under one transaction id.

-- Lock a user's account and book what is due. The caller undoes all of it where nothing is written.
create or replace function ducto._opened(p_user_id text, p_now timestamptz) returns ducto.accounts
language plpgsql as $$
declare
    a ducto.accounts;
begin
    select x.* into a from ducto.accounts as x where x.account_kind = 'u' and x.account_id = p_user_id;
    if a.account_id is null then
        return ducto._blank('u', p_user_id);
    end if;
    if a.next_due_at <= p_now then
        return ducto._book_due(a, p_now);
    end if;
    return a;
end
$$;

-- What left, by expiry: credits that expire go on expiring, else a transfer would make them last for ever.
create or replace procedure ducto._receive_transfer(
    inout a ducto.accounts, inout r ducto.ledger, p_source ducto.accounts, p_out ducto.ledger)
language plpgsql as $$
declare
    v_part record;
begin
    for v_part in
        select g.expires_at, -pg_catalog.sum((d.delta ->> 1)::bigint)::bigint as amount, pg_catalog.min(d.ord) as ord
        from pg_catalog.jsonb_array_elements(p_out.grant_deltas) with ordinality as d(delta, ord)
        join ducto.grants as g on g.account_kind = p_source.account_kind and g.account_id = p_source.account_id
            and g.number = (d.delta ->> 0)::bigint
        group by g.expires_at
        order by 3
    loop
        call ducto._receive(a, r, v_part.amount, v_part.expires_at);
    end loop;
    if p_out.base_delta <> 0 then
        call ducto._receive(a, r, -p_out.base_delta, null);
    end if;
end
$$;

create or replace function ducto._transfer(p_now timestamptz, p jsonb) returns jsonb
language plpgsql as $$
declare
    a ducto.accounts := ducto._opened(p ->> 'from_user_id', p_now);
    b ducto.accounts := ducto._opened(p ->> 'to_user_id', p_now);
    r ducto.ledger;
    s ducto.ledger;
    v_amount bigint := (p ->> 'amount')::bigint;
    v_refusal jsonb;
    v_reply jsonb;
begin
    r := ducto._keyed_row(a, a.account_id, 'transfer', p ->> 'idempotency_key');
    if r.sequence is not null then
        return coalesce(
            ducto._mismatch(r.key, array['amount', 'to_user_id'],
                array[-r.amount <> v_amount, r.counterparty <> p ->> 'to_user_id']),
            ducto._replayed(r));
    end if;
    v_refusal := ducto._check_debit(a, v_amount, (p ->> 'min_balance')::bigint);
    if v_refusal is not null then
        return v_refusal;
    end if;
    if b.base + b.granted > 9007199254740991 - v_amount then
        return ducto._refusal('overflow', 'The balance would exceed 2^53-1 credits.');
    end if;

    -- New rows are made in the order of the locks.
    if a.account_id < b.account_id then
        a := ducto._commit(a, p_now);
        b := ducto._commit(b, p_now);
    else
        b := ducto._commit(b, p_now);
        a := ducto._commit(a, p_now);
    end if;
    r := ducto._new_row(a, 'transfer_out', 'transfer', p_now);
    call ducto._spend_free(a, r, v_amount);
    call ducto._append(a, r);
    r.counterparty := b.account_id;
    r.min_balance := (p ->> 'min_balance')::bigint;
    r.key := p ->> 'idempotency_key';
    r.metadata := ducto._present(p -> 'metadata');
    s := ducto._new_row(b, 'transfer_in', 'transfer', p_now);
    call ducto._receive_transfer(b, s, a, r);
    call ducto._append(b, s);
    s.transfer_id := ducto._transaction_id(a.tag, r.sequence);
    s.counterparty := a.account_id;
    s.metadata := r.metadata;
    v_reply := pg_catalog.jsonb_build_object('transaction_id', s.transfer_id, 'from_user_id', a.account_id,
        'to_user_id', b.account_id, 'amount', v_amount, 'from_balance', r.balance_after,
        'to_balance', s.balance_after);
    r.reply := case when r.key is not null then v_reply end;
    perform ducto._write(r);
    perform ducto._write(s);
    perform ducto._save(a);
    perform ducto._save(b);
    return v_reply;
end
$$;

create or replace function public.ducto_transfer(
    p_from_user_id text, p_to_user_id text, p_amount bigint, p_metadata jsonb default null,
    p_min_balance bigint default 0, p_idempotency_key text default null) returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    p jsonb := pg_catalog.jsonb_build_object('from_user_id', p_from_user_id, 'to_user_id', p_to_user_id,
        'amount', p_amount, 'metadata', p_metadata, 'min_balance', p_min_balance, 'idempotency_key', p_idempotency_key);
    v_reply jsonb := coalesce(
        ducto._amount_fault(p -> 'amount', 'amount', 1),
        ducto._text_fault(p -> 'from_user_id', 'from_user_id'),
        ducto._text_fault(p -> 'to_user_id', 'to_user_id'),
        ducto._key_fault(p -> 'idempotency_key'),
        ducto._whole_fault(p -> 'min_balance', 'min_balance', -9007199254740991, 9007199254740991),
        ducto._metadata_fault(p -> 'metadata'));
    v_last timestamptz;
begin
    if v_reply is not null then
        return v_reply;
    end if;
    if p_from_user_id collate "C" = p_to_user_id collate "C" then
        return ducto._refusal('invalid_argument', 'to_user_id must be another user than from_user_id.');
    end if;
    loop
        perform from ducto.accounts as x
        where x.account_kind = 'u' and x.account_id in (p_from_user_id, p_to_user_id)
        order by x.account_id for no key update;
        select pg_catalog.max(x.last_op_at) into v_last from ducto.accounts as x
        where x.account_kind = 'u' and x.account_id in (p_from_user_id, p_to_user_id);
        begin
            v_reply := ducto._transfer(greatest(ducto._clock(), v_last), p);
            if v_reply ? 'error' or v_reply ? 'replayed' then
                raise exception '%', v_reply using errcode = 'DU001';
            end if;
            return v_reply;
        exception
            when sqlstate 'DU001' then return sqlerrm::jsonb;
            when sqlstate 'DU002' then null;  -- Somebody else has made a row: once more, with that.
        end;
    end loop;
end
$$;
