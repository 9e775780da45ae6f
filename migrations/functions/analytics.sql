-- Spend reports over the rows of all accounts, in the half-open window [start, end).

create or replace function ducto._window_fault(p_start timestamptz, p_end timestamptz) returns jsonb
language sql immutable as $$
    select case
        when p_start is null then ducto._refusal('invalid_argument',
            'start must be an aware datetime (with a time zone), not NoneType.')
        when p_end is null then ducto._refusal('invalid_argument',
            'end must be an aware datetime (with a time zone), not NoneType.')
        when p_start > p_end then ducto._refusal('invalid_argument', 'start must not be after end.')
    end
$$;

-- What all rows of the reports have.
create or replace function ducto._tally(p_spent numeric, p_transactions numeric, p_refunded numeric) returns jsonb
language sql stable as $$
    select pg_catalog.jsonb_build_object('total_spend', p_spent, 'transaction_count', p_transactions,
        'refunded', p_refunded)
$$;

create or replace function public.ducto_spend_by_user(p_start timestamptz, p_end timestamptz) returns jsonb
language plpgsql stable security definer set search_path = '' set jit = off as $$
begin
    return coalesce(ducto._window_fault(p_start, p_end), (
        select pg_catalog.jsonb_build_object('rows', coalesce(pg_catalog.jsonb_agg(
            ducto._tally(x.spent, x.transactions, x.refunded) || pg_catalog.jsonb_build_object('user_id', x.user_id)
            order by x.user_id), '[]'))
        from (
            select s.user_id, sum(s.spent) as spent, sum(s.transactions) as transactions, sum(s.refunded) as refunded
            from ducto.spends as s where s.created_at >= p_start and s.created_at < p_end group by s.user_id
        ) as x));
end
$$;

create or replace function public.ducto_spend_by_model(p_start timestamptz, p_end timestamptz) returns jsonb
language plpgsql stable security definer set search_path = '' set jit = off as $$
begin
    return coalesce(ducto._window_fault(p_start, p_end), (
        select pg_catalog.jsonb_build_object('rows', coalesce(pg_catalog.jsonb_agg(
            ducto._tally(x.spent, x.transactions, x.refunded) || pg_catalog.jsonb_build_object('model', x.model)
            order by x.model nulls last), '[]'))
        from (
            select s.model, sum(s.spent) as spent, sum(s.transactions) as transactions, sum(s.refunded) as refunded
            from ducto.spends as s where s.created_at >= p_start and s.created_at < p_end group by s.model
        ) as x));
end
$$;

-- Most first, ties by name.
create or replace function public.ducto_top_users(p_limit integer, p_start timestamptz, p_end timestamptz) returns jsonb
language plpgsql stable security definer set search_path = '' set jit = off as $$
begin
    return coalesce(
        ducto._window_fault(p_start, p_end),
        ducto._whole_fault(pg_catalog.to_jsonb(p_limit), 'limit', 1, 1000), (
        select pg_catalog.jsonb_build_object('rows', coalesce(pg_catalog.jsonb_agg(
            ducto._tally(x.spent, x.transactions, x.refunded) || pg_catalog.jsonb_build_object('user_id', x.user_id)
            order by x.spent desc, x.user_id), '[]'))
        from (
            select s.user_id, sum(s.spent) as spent, sum(s.transactions) as transactions, sum(s.refunded) as refunded
            from ducto.spends as s where s.created_at >= p_start and s.created_at < p_end
            group by s.user_id having sum(s.transactions) > 0
            order by 2 desc, 1 limit p_limit
        ) as x));
end
$$;

create or replace function public.ducto_daily_spend(p_start timestamptz, p_end timestamptz) returns jsonb
language plpgsql stable security definer set search_path = '' set jit = off as $$
begin
    return coalesce(ducto._window_fault(p_start, p_end), (
        select pg_catalog.jsonb_build_object('rows', coalesce(pg_catalog.jsonb_agg(
            ducto._tally(x.spent, x.transactions, x.refunded) || pg_catalog.jsonb_build_object('day', x.day)
            order by x.day), '[]'))
        from (
            select (s.created_at at time zone 'UTC')::date as day, sum(s.spent) as spent,
                sum(s.transactions) as transactions, sum(s.refunded) as refunded
            from ducto.spends as s where s.created_at >= p_start and s.created_at < p_end group by 1
        ) as x));
end
$$;

-- `avg_daily_spend` is the total over the UTC days that the window touches, rounded down.
create or replace function public.ducto_aggregate_stats(p_start timestamptz, p_end timestamptz) returns jsonb
language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
    v_fault jsonb := ducto._window_fault(p_start, p_end);
    v_days integer := ((p_end - interval '1 microsecond') at time zone 'UTC')::date - (p_start at time zone 'UTC')::date + 1;
begin
    if v_fault is not null then
        return v_fault;
    end if;
    return (
        with tallies as (
            select s.user_id, s.model, sum(s.spent) as spent, sum(s.transactions) as transactions,
                sum(s.refunded) as refunded
            from ducto.spends as s where s.created_at >= p_start and s.created_at < p_end group by 1, 2
        )
        select ducto._tally(coalesce(sum(t.spent), 0), coalesce(sum(t.transactions), 0), coalesce(sum(t.refunded), 0))
            || pg_catalog.jsonb_build_object(
                'active_users', count(distinct t.user_id) filter (where t.transactions > 0),
                'avg_daily_spend', case when p_start < p_end
                    then pg_catalog.div(coalesce(sum(t.spent), 0), v_days::numeric) else 0 end,
                'top_model', (select x.model from tallies as x where x.model is not null
                    group by x.model having sum(x.transactions) > 0 order by sum(x.spent) desc, x.model limit 1),
                'top_user', (select x.user_id from tallies as x
                    group by x.user_id having sum(x.transactions) > 0 order by sum(x.spent) desc, x.user_id limit 1))
        from tallies as t);
end
$$;
