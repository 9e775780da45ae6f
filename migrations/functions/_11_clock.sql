-- The clock, and calendar windows in UTC.

-- The only clock of the store. Tests put another one in its place.
create or replace function ducto._clock() returns timestamptz
language sql volatile as $$
    select pg_catalog.clock_timestamp()
$$;

-- The calendar month as one number, so that consecutive months are consecutive numbers.
create or replace function ducto._month(p_at timestamptz) returns integer
language sql immutable parallel safe as $$
    select (extract(year from p_at at time zone 'UTC') * 12 + extract(month from p_at at time zone 'UTC') - 1)::integer
$$;

-- The half-open window of a cap that an instant falls in.
create or replace function ducto._window(p_cap_type text, p_at timestamptz, out window_start timestamptz, out window_end timestamptz)
language sql immutable parallel safe as $$
    select b at time zone 'UTC', (b + case p_cap_type when 'hourly' then interval '1 hour'
        when 'daily' then interval '1 day' else interval '1 month' end) at time zone 'UTC'
    from pg_catalog.date_trunc(case p_cap_type when 'hourly' then 'hour' when 'daily' then 'day' else 'month' end,
        p_at at time zone 'UTC') as b
$$;

-- As the messages write an instant.
create or replace function ducto._iso(p_at timestamptz) returns text
language sql stable parallel safe as $$
    select pg_catalog.to_char(p_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')
        || case when pg_catalog.date_trunc('second', p_at) = p_at then ''
            else pg_catalog.to_char(p_at at time zone 'UTC', '.US') end || '+00:00'
$$;
