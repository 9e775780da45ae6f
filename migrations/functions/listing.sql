-- Reading the ledger: single transactions, and pages of them.

create or replace function ducto._transaction(r ducto.ledger, p_tag text) returns jsonb
language sql stable as $$
    select pg_catalog.jsonb_build_object(
        'transaction_id', coalesce(r.transfer_id, ducto._transaction_id(p_tag, r.sequence)),
        'sequence', r.sequence,
        'type', r.type,
        'user_id', nullif(r.user_id, ''),
        'team_id', ducto._team_of(r.account_kind, r.account_id),
        'amount', r.amount,
        'balance_after', r.balance_after,
        'actual', r.actual,
        'charged', r.charged,
        'unbilled', r.unbilled,
        'allowance_consumed', r.allowance,
        'refunded', r.refunded,
        'reservation_id', ducto._reservation_id(p_tag, r.reservation),
        'reserved', r.reserved,
        'refunded_transaction_id', ducto._transaction_id(p_tag, r.refunds),
        'counterparty', r.counterparty,
        'operation_type', r.operation_type,
        'model', r.model,
        'pricing_version', r.pricing_version,
        'plan_id', r.plan_id)
    || pg_catalog.jsonb_build_object(
        'usage', r.usage,
        'estimated', r.estimated,
        'late', r.late,
        'forced', r.forced,
        'suspect', r.suspect,
        'expires_at', r.expires_at,
        'idempotency_key', r.key,
        'metadata', r.metadata,
        'grant_deltas', case when r.grant_deltas is null then '[]'::jsonb
            else ducto._grant_parts(r.account_kind, r.account_id, r.grant_deltas) end,
        -- In the row of a settled call the answer tells what caps said once it was booked, not when it was admitted.
        'cap_warning', case when r.type = 'charge' then r.reply -> 'cap_warning' end,
        'cap_notices', coalesce(case when r.type = 'charge' then r.reply -> 'cap_notices' end, '[]'),
        'booked_at', r.booked_at,
        'created_at', r.created_at)
$$;

-- For a transfer the row of the one who sent.
create or replace function public.ducto_get_transaction(p_transaction_id text) returns jsonb
language plpgsql stable security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    v_row record;
begin
    if p_transaction_id is null then
        return ducto._odd_text_fault(null, 'transaction_id', 200);
    end if;
    v_row := ducto._minted(p_transaction_id, 'txn_');
    return coalesce((
        select ducto._transaction(l, ducto._tag(l.account_kind, l.account_id)) from ducto.ledger as l
        where l.account_kind = v_row.kind and l.account_id = v_row.id and l.sequence = v_row.number
            and l.transfer_id is null), ducto._no_transaction(p_transaction_id));
end
$$;

-- Newest first. The cursor is the number of the last row seen, so that new rows never shift a page.
create or replace function public.ducto_list_transactions(
    p_user_id text default null, p_team_id text default null, p_cursor text default null, p_limit integer default 50)
returns jsonb
language plpgsql stable security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    p jsonb := pg_catalog.jsonb_build_object('user_id', p_user_id, 'team_id', p_team_id, 'limit', p_limit);
    v_fault jsonb := coalesce(
        ducto._whole_fault(p -> 'limit', 'limit', 1, 1000),
        ducto._optional_text_fault(p -> 'user_id', 'user_id'),
        ducto._optional_text_fault(p -> 'team_id', 'team_id'),
        case when p_user_id is null and p_team_id is null then ducto._refusal('invalid_argument',
            'Give user_id, team_id, or both for a member''s rows in the team.') end,
        case when p_team_id is not null and not exists (
            select from ducto.accounts as a
            where a.account_kind = 't' and a.account_id = p_team_id and not a.deleted) then ducto._no_team(p_team_id) end,
        case when p_cursor is not null and p_cursor !~ '^[0-9]{1,16}$' then ducto._refusal('invalid_argument',
            'A cursor is what the page before gave as next_cursor.') end);
    v_kind text := case when p_team_id is null then 'u' else 't' end;
    v_id text := coalesce(p_team_id, p_user_id);
    v_rows jsonb;
    v_last bigint;
    v_count bigint;
begin
    if v_fault is not null then
        return v_fault;
    end if;
    -- One row more than is shown tells whether there are any after.
    select pg_catalog.jsonb_agg(ducto._transaction(x.l, ducto._tag(v_kind, v_id)) order by x.place)
            filter (where x.place <= p_limit),
        pg_catalog.min((x.l).sequence) filter (where x.place <= p_limit), pg_catalog.count(*)
    into v_rows, v_last, v_count
    from (
        select y.l, pg_catalog.row_number() over (order by (y.l).sequence desc) as place from (
            select l from ducto.ledger as l
            where l.account_kind = v_kind and l.account_id = v_id
                and (p_team_id is null or p_user_id is null or l.user_id = p_user_id)
                and l.sequence < coalesce(p_cursor::bigint, 9007199254740991)
            order by l.sequence desc limit p_limit + 1) as y
    ) as x;
    return pg_catalog.jsonb_build_object('transactions', coalesce(v_rows, '[]'),
        'next_cursor', case when v_count > p_limit then v_last::text end);
end
$$;
