-- Refund: a spend, or part of it, goes back to the account that paid.

-- Put money back where it came from, latest consumed first, after the `p_before` that went back earlier.
create or replace procedure ducto._return_money(
    inout a ducto.accounts, inout r ducto.ledger, p_spend ducto.ledger, p_before bigint, p_money bigint)
language plpgsql as $$
declare
    v_source record;
    g ducto.grants;
    v_skipped bigint;
    v_back bigint;
begin
    for v_source in
        select s.number, s.taken from (
            select null::bigint as number, -p_spend.base_delta as taken, 0::bigint as place where p_spend.base_delta < 0
            union all
            select (d.delta ->> 0)::bigint, -(d.delta ->> 1)::bigint, 1000000 - d.ord
            from pg_catalog.jsonb_array_elements(p_spend.grant_deltas) with ordinality as d(delta, ord)
            where (d.delta ->> 1)::bigint < 0
        ) as s order by s.place
    loop
        v_skipped := least(v_source.taken, p_before);
        p_before := p_before - v_skipped;
        v_back := least(v_source.taken - v_skipped, p_money);
        continue when v_back <= 0;
        p_money := p_money - v_back;
        g := null;
        if v_source.number is not null then
            select x.* into g from ducto.grants as x
            where x.account_kind = a.account_kind and x.account_id = a.account_id and x.number = v_source.number;
        end if;
        if g.number is null or g.expires_at <= r.created_at then
            a.base := a.base + v_back;
            r.base_delta := r.base_delta + v_back;
        else
            a := ducto._move_grant(a, g.number, v_back);
            a.next_due_at := least(a.next_due_at, g.expires_at);
            r.grant_deltas := ducto._with_delta(r.grant_deltas, g.number, v_back);
        end if;
    end loop;
end
$$;

create or replace function ducto._refund(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language plpgsql as $$
declare
    v_spend ducto.ledger;
    r ducto.ledger;
    v_tally ducto.refund_tallies;
    v_id text := p ->> 'transaction_id';
    v_asked bigint := (p ->> 'amount')::bigint;
    v_left bigint;
    v_money bigint;
    v_lapsed bigint;
    v_restored bigint := 0;
    v_reply jsonb;
begin
    select l.* into v_spend from ducto.ledger as l
    where l.account_kind = a.account_kind and l.account_id = a.account_id and l.sequence = (p ->> 'number')::bigint
        and l.transfer_id is null;
    if not found then
        return ducto._no_transaction(v_id);
    end if;
    r := ducto._keyed_row(a, v_spend.user_id, 'refund', p ->> 'idempotency_key');
    if r.sequence is not null then
        return coalesce(
            ducto._mismatch(r.key, array['amount', 'transaction_id'], array[
                (r.reply ->> 'asked')::bigint is distinct from v_asked, r.refunds <> v_spend.sequence]),
            ducto._replayed(r) - 'asked');
    end if;
    -- Adjustments and transfers are undone by another adjustment or transfer, with a floor to respect.
    if v_spend.type not in ('deduction', 'charge', 'allowance') or v_spend.charged = 0 then
        return ducto._refusal('not_refundable',
            'The transaction ' || v_id || ' charged nothing that could be refunded.');
    end if;
    select t.* into v_tally from ducto.refund_tallies as t
    where t.account_kind = a.account_kind and t.account_id = a.account_id and t.sequence = v_spend.sequence;
    v_tally.money := coalesce(v_tally.money, 0);
    v_tally.allowance := coalesce(v_tally.allowance, 0);
    v_left := v_spend.charged - v_tally.money - v_tally.allowance;
    if v_left = 0 then
        return ducto._refusal('already_refunded', 'The transaction ' || v_id || ' has been refunded in full.');
    end if;
    if v_asked > v_left then
        return ducto._refusal('over_refund', v_asked || ' credits are more than the ' || v_left || ' left to refund.',
            pg_catalog.jsonb_build_object('limit', v_left));
    end if;
    v_money := least(coalesce(v_asked, v_left), -v_spend.amount - v_tally.money);
    v_lapsed := coalesce(v_asked, v_left) - v_money;
    if a.base + a.granted > 9007199254740991 - v_money then
        return ducto._refusal('overflow', 'The balance would exceed 2^53-1 credits.');
    end if;

    a := ducto._commit(a, p_now);
    r := ducto._new_row(a, 'refund', 'refund', p_now);
    r.user_id := v_spend.user_id;
    call ducto._return_money(a, r, v_spend, v_tally.money, v_money);
    call ducto._repay_debt(a, r, p_now);
    if v_lapsed > 0 and ducto._month(v_spend.booked_at) = ducto._month(p_now) then
        v_restored := v_lapsed;
        perform ducto._use_allowance(a, p_now, -v_restored);
    end if;
    insert into ducto.refund_tallies as t (account_kind, account_id, sequence, money, allowance)
    values (a.account_kind, a.account_id, v_spend.sequence, v_money, v_lapsed)
    on conflict (account_kind, account_id, sequence)
        do update set money = t.money + excluded.money, allowance = t.allowance + excluded.allowance;
    r.refunded := v_money + v_restored;
    r.allowance := -v_restored;
    r.refunds := v_spend.sequence;
    r.model := v_spend.model;
    r.operation_type := v_spend.operation_type;
    r.key := p ->> 'idempotency_key';
    r.metadata := ducto._present(p -> 'metadata');
    call ducto._append(a, r);
    v_reply := pg_catalog.jsonb_build_object(
        'transaction_id', ducto._transaction_id(a.tag, r.sequence),
        'refunded_transaction_id', v_id,
        'user_id', v_spend.user_id,
        'team_id', ducto._team_of(a.account_kind, a.account_id),
        'amount', v_money,
        'allowance_restored', v_restored,
        'balance_after', r.balance_after);
    r.reply := case when r.key is not null then v_reply || pg_catalog.jsonb_build_object('asked', v_asked) end;
    perform ducto._write(r);
    perform ducto._save(a);
    return v_reply;
end
$$;

create or replace function public.ducto_refund(
    p_transaction_id text, p_amount bigint default null, p_reason text default null, p_metadata jsonb default null,
    p_idempotency_key text default null) returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    p jsonb := pg_catalog.jsonb_build_object('transaction_id', p_transaction_id, 'amount', p_amount, 'reason', p_reason,
        'metadata', p_metadata, 'idempotency_key', p_idempotency_key);
    v_fault jsonb := coalesce(
        case when p_amount is not null then ducto._amount_fault(p -> 'amount', 'amount', 1) end,
        ducto._key_fault(p -> 'idempotency_key'),
        ducto._optional_text_fault(p -> 'reason', 'reason'),
        ducto._metadata_fault(p -> 'metadata'),
        case when p_transaction_id is null then ducto._odd_text_fault(null, 'transaction_id', 200) end);
    v_row record;
begin
    if v_fault is not null then
        return v_fault;
    end if;
    v_row := ducto._minted(p_transaction_id, 'txn_');
    if v_row.kind is null then
        return ducto._no_transaction(p_transaction_id);
    end if;
    if p_reason is not null then
        p := pg_catalog.jsonb_set(p, '{metadata}',
            coalesce(p_metadata, '{}') || pg_catalog.jsonb_build_object('reason', p_reason));
    end if;
    return ducto._run('refund', v_row.kind, v_row.id, p || pg_catalog.jsonb_build_object('number', v_row.number));
end
$$;
