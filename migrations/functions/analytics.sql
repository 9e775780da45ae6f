-- Spend reports over the rows of all accounts, in the half-open window [start, end). The planner is told the bounds,
-- because a plan for any window would be a bad one for most.

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
language plpgsql stable security definer set search_path = '' set jit = off
set plan_cache_mode = force_custom_plan as $$
begin
    return coalesce(ducto._window_fault(p_start, p_end), (
        select pg_catalog.jsonb_build_object('rows', coalesce(pg_catalog.jsonb_agg(
            ducto._tally(x.spent, x.transactions, x.refunded) || pg_catalog.jsonb_build_object('user_id', x.user_id)
            order by x.user_id collate "C"), '[]'))
        from ducto._spend_by_user(p_start, p_end) as x));
end
$$;

create or replace function public.ducto_spend_by_model(p_start timestamptz, p_end timestamptz) returns jsonb
language plpgsql stable security definer set search_path = '' set jit = off
set plan_cache_mode = force_custom_plan as $$
begin
    return coalesce(ducto._window_fault(p_start, p_end), (
        select pg_catalog.jsonb_build_object('rows', coalesce(pg_catalog.jsonb_agg(
            ducto._tally(x.spent, x.transactions, x.refunded) || pg_catalog.jsonb_build_object('model', x.model)
            order by x.model collate "C" nulls last), '[]'))
        from (
            select s.model, sum(s.spent) as spent, sum(s.transactions) as transactions, sum(s.refunded) as refunded
            from ducto._spend_by_model(p_start, p_end) as s group by s.model
        ) as x));
end
$$;

-- Most first, ties by name.
create or replace function public.ducto_top_users(p_limit integer, p_start timestamptz, p_end timestamptz) returns jsonb
language plpgsql stable security definer set search_path = '' set jit = off
set plan_cache_mode = force_custom_plan as $$
begin
    return coalesce(
        ducto._window_fault(p_start, p_end),
        ducto._whole_fault(pg_catalog.to_jsonb(p_limit), 'limit', 1, 1000), (
        select pg_catalog.jsonb_build_object('rows', coalesce(pg_catalog.jsonb_agg(
            ducto._tally(x.spent, x.transactions, x.refunded) || pg_catalog.jsonb_build_object('user_id', x.user_id)
            order by x.spent desc, x.user_id collate "C"), '[]'))
        from (
            select s.* from ducto._spend_by_user(p_start, p_end) as s where s.transactions > 0
            order by s.spent desc, s.user_id collate "C" limit p_limit
        ) as x));
end
$$;

create or replace function public.ducto_daily_spend(p_start timestamptz, p_end timestamptz) returns jsonb
language plpgsql stable security definer set search_path = '' set jit = off
set plan_cache_mode = force_custom_plan as $$
begin
    return coalesce(ducto._window_fault(p_start, p_end), (
        select pg_catalog.jsonb_build_object('rows', coalesce(pg_catalog.jsonb_agg(
            ducto._tally(x.spent, x.transactions, x.refunded) || pg_catalog.jsonb_build_object('day', x.day)
            order by x.day), '[]'))
        from (
            select s.day, sum(s.spent) as spent, sum(s.transactions) as transactions, sum(s.refunded) as refunded
            from ducto._spend_by_model(p_start, p_end) as s group by s.day
        ) as x));
end
$$;

-- `avg_daily_spend` is the total over the UTC days that the window touches, rounded down.
create or replace function public.ducto_aggregate_stats(p_start timestamptz, p_end timestamptz) returns jsonb
language plpgsql stable security definer set search_path = '' set jit = off
set plan_cache_mode = force_custom_plan as $$
declare
    v_fault jsonb := ducto._window_fault(p_start, p_end);
    v_days integer := ((p_end - interval '1 microsecond') at time zone 'UTC')::date - (p_start at time zone 'UTC')::date + 1;
begin
    if v_fault is not null then
        return v_fault;
    end if;
    return (
        with users as materialized (
            select s.* from ducto._spend_by_user(p_start, p_end) as s
        ), models as (
            select s.model, sum(s.spent) as spent from ducto._spend_by_model(p_start, p_end) as s
            where s.model is not null group by s.model having sum(s.transactions) > 0
        )
        select ducto._tally(coalesce(sum(u.spent), 0), coalesce(sum(u.transactions), 0), coalesce(sum(u.refunded), 0))
            || pg_catalog.jsonb_build_object(
                'active_users', count(*) filter (where u.transactions > 0),
                'avg_daily_spend', case when p_start < p_end
                    then pg_catalog.div(coalesce(sum(u.spent), 0), v_days::numeric) else 0 end,
                'top_model', (select m.model from models as m order by m.spent desc, m.model collate "C" limit 1),
                'top_user', (select x.user_id from users as x where x.transactions > 0
                    order by x.spent desc, x.user_id collate "C" limit 1))
        from users as u);
end
$$;
