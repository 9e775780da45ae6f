-- The rows of the whole book, oldest first, in the order of events: see events.sql, whose cursors have the same form.

-- Up to `p_limit` rows after the cursor that were created in `[p_start, p_end)`; a bound that is null is open. The
-- cursor is that of the last row, so that a reader who has come to the end goes on from there later.
create or replace function public.ducto_list_ledger(
    p_after text default null, p_start timestamptz default null, p_end timestamptz default null,
    p_limit integer default 100)
returns jsonb
language plpgsql stable security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    v_fault jsonb := coalesce(
        ducto._whole_fault(pg_catalog.to_jsonb(p_limit), 'limit', 1, 1000),
        case when p_start > p_end then ducto._window_fault(p_start, p_end) end);
    v_after record := ducto._event_place(p_after);
    v_start timestamptz := coalesce(p_start, '-infinity');
    v_end timestamptz := coalesce(p_end, 'infinity');
    v_from xid8 := v_after.xid;
    v_rows jsonb;
begin
    if v_fault is not null then
        return v_fault;
    end if;
    if v_after.xid is null then
        return ducto._refusal('invalid_argument', 'A cursor is what the page before gave as next_cursor.');
    end if;
    if p_after is null and p_start is not null then
        -- Where the window begins is found by time, not by going through all rows before it. Without `offset` the
        -- planner would do just that, for the least transaction.
        select min(x.xid) into v_from from (
            select l.xid from ducto.ledger as l where l.created_at >= v_start and l.created_at < v_end offset 0
        ) as x;
    end if;
    select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('place', (x.l).xid || '.' || x.tag || '.' || (x.l).event,
        'row', ducto._transaction(x.l, x.tag))
        order by (x.l).xid, (x.l).account_kind, (x.l).account_id, (x.l).event)
    into v_rows
    from (
        select l, ducto._tag(l.account_kind, l.account_id) as tag from ducto.ledger as l
        where l.xid >= v_from and l.xid < pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())
            and (l.xid > v_after.xid
                or (l.account_kind, l.account_id, l.event) > (v_after.kind, v_after.id, v_after.event))
            and l.created_at >= v_start and l.created_at < v_end
        order by l.xid, l.account_kind, l.account_id, l.event limit p_limit
    ) as x;
    return pg_catalog.jsonb_build_object(
        'transactions', coalesce(pg_catalog.jsonb_path_query_array(v_rows, '$[*].row'), '[]'),
        'next_cursor', v_rows -> -1 -> 'place');
end
$$;
