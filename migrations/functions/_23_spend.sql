-- What a spend report is added up from, in one snapshot: the sums of the whole UTC days (hours, for models) within its
-- window, the rows of the partial ones at both ends, and the rows between that are not in the sums yet. So a report is
-- exact at any moment, also while rows are rolled up beside it, and quick when that was done not long ago.

-- The transaction up to which rows are in the sums; null where none are. A number that another server has counted (the
-- books were restored from a dump) says nothing about the rows that are written here, so the sums do not count then.
create or replace function ducto._rolled_through() returns xid8
language sql stable as $$
    select r.through from ducto.rolled_up as r
    where r.server = (select c.system_identifier from pg_catalog.pg_control_system() as c)
        and r.through < pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())
$$;

-- How a window is divided for sums of that unit, 'day' or 'hour': between `whole_start` and `whole_end` they are whole.
-- Where no sums can be used, the first part is the whole window.
create or replace function ducto._parts_of_window(
    p_unit text, p_start timestamptz, p_end timestamptz,
    out whole_start timestamptz, out whole_end timestamptz, out through xid8)
language plpgsql stable as $$
begin
    through := ducto._rolled_through();
    whole_start := pg_catalog.date_trunc(p_unit, p_start, 'UTC');
    if whole_start < p_start then
        -- Not '1 day', which is an hour more or less where the session's time zone changes its clocks.
        whole_start := whole_start + case p_unit when 'day' then interval '24 hours' else interval '1 hour' end;
    end if;
    whole_end := pg_catalog.date_trunc(p_unit, p_end, 'UTC');
    if through is null or whole_start >= whole_end then
        whole_start := p_end;
        whole_end := p_end;
    end if;
end
$$;

-- The rows that no sum has. Plain SQL, so that it is planned as part of the statement that asks, with the real bounds:
-- they decide between the index by time and that by transaction.
create or replace function ducto._unsummed(
    p_start timestamptz, p_whole_start timestamptz, p_whole_end timestamptz, p_end timestamptz, p_through xid8)
returns table (user_id text, model text, created_at timestamptz, spent bigint, refunded bigint, transactions integer)
language sql stable as $$
    select s.user_id, s.model, s.created_at, s.spent, s.refunded, s.transactions from ducto.spends as s
    where s.created_at >= p_start and s.created_at < p_whole_start
    union all
    select s.user_id, s.model, s.created_at, s.spent, s.refunded, s.transactions from ducto.spends as s
    where s.created_at >= p_whole_end and s.created_at < p_end
    union all
    select s.user_id, s.model, s.created_at, s.spent, s.refunded, s.transactions from ducto.spends as s
    where s.xid > p_through and s.created_at >= p_whole_start and s.created_at < p_whole_end
$$;

create or replace function ducto._spend_by_user(p_start timestamptz, p_end timestamptz)
returns table (user_id text, spent numeric, transactions numeric, refunded numeric)
language plpgsql stable as $$
declare
    p record := ducto._parts_of_window('day', p_start, p_end);
begin
    return query
    select x.user_id, sum(x.spent), sum(x.transactions), sum(x.refunded)
    from (
        select d.user_id, d.spent, d.transactions, d.refunded from ducto.user_days as d
        where d.day >= p.whole_start and d.day < p.whole_end
        union all
        select s.user_id, s.spent, s.transactions, s.refunded
        from ducto._unsummed(p_start, p.whole_start, p.whole_end, p_end, p.through) as s
    ) as x group by x.user_id;
end
$$;

-- By UTC day and model; no model is null.
create or replace function ducto._spend_by_model(p_start timestamptz, p_end timestamptz)
returns table (day date, model text, spent numeric, transactions numeric, refunded numeric)
language plpgsql stable as $$
declare
    p record := ducto._parts_of_window('hour', p_start, p_end);
begin
    return query
    select (x.at at time zone 'UTC')::date, x.model, sum(x.spent), sum(x.transactions), sum(x.refunded)
    from (
        select h.hour as at, nullif(h.model, '') as model, h.spent, h.transactions, h.refunded
        from ducto.model_hours as h where h.hour >= p.whole_start and h.hour < p.whole_end
        union all
        select s.created_at, s.model, s.spent, s.transactions, s.refunded
        from ducto._unsummed(p_start, p.whole_start, p.whole_end, p_end, p.through) as s
    ) as x group by 1, 2;
end
$$;
