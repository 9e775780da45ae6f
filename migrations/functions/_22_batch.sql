-- Batches: many items in one call and one transaction, each with its own answer, in the order of the items.
--
-- First the accounts of all items are locked, in ascending order and in a statement of its own; no further lock is
-- waited for. Then one set-based statement serves the items of plain accounts: users whose row says that there are no
-- grants, no caps and nothing due, and whose plan gives no allowance. Several items of one plain account are folded
-- where all of them pass; else, and for all other accounts, each item goes by itself, through `_run`.
--
-- A lone call is no batch of one: to set up the set-based statement takes longer than to run it once. So reserve and
-- deduct have a `_..._lone` that does the same for a plain account in few and small steps. What costs time there is how
-- many expressions are set up, once in every transaction, and not what they compute.
--
-- The set-based statements reach tables by `lateral (... limit 1)` and by `ctid`, so that whatever the planner knows
-- of the tables' sizes, it looks every row up by itself; `ctid` is stable because the rows are locked.

-- Lock accounts; the users among them that are locked now. Where `p_wait` is false, those that are locked elsewhere
-- are left out.
create or replace function ducto._lock_accounts(p_kinds text[], p_ids text[], p_wait boolean) returns text[]
language plpgsql set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan set jit = off as $$
begin
    if p_wait then
        return array(
            select l.account_id from (
                select x.account_kind, x.account_id
                from (select distinct k.kind collate "C" as kind, k.id collate "C" as id
                    from rows from (pg_catalog.unnest(p_kinds), pg_catalog.unnest(p_ids)) as k(kind, id)) as d
                join ducto.accounts as x on x.account_kind = d.kind and x.account_id = d.id
                order by x.account_kind, x.account_id for no key update of x
            ) as l where l.account_kind = 'u');
    end if;
    return array(
        select l.account_id from (
            select x.account_kind, x.account_id
            from (select distinct k.kind collate "C" as kind, k.id collate "C" as id
                from rows from (pg_catalog.unnest(p_kinds), pg_catalog.unnest(p_ids)) as k(kind, id)) as d
            join ducto.accounts as x on x.account_kind = d.kind and x.account_id = d.id
            order by x.account_kind, x.account_id for no key update of x skip locked
        ) as l where l.account_kind = 'u');
end
$$;

-- Serve one after another, in the order of accounts, the items that the set-based statement left over, and put all
-- answers in the order of the items. `p_answers` has the answers so far, by place, counted from 1.
create or replace function ducto._serve_rest(
    p_verb text, p_items jsonb, p_kinds text[], p_ids text[], p_wait boolean, p_places bigint[], p_answers jsonb[])
returns jsonb
language plpgsql as $$
declare
    v_answers jsonb[] := pg_catalog.array_fill(null::jsonb, array[pg_catalog.jsonb_array_length(p_items)]);
    v_rest record;
    v_item jsonb;
begin
    for i in 1 .. coalesce(pg_catalog.array_length(p_places, 1), 0) loop
        v_answers[p_places[i]] := p_answers[i];
    end loop;
    for v_rest in
        select k.ord from rows from (pg_catalog.unnest(p_kinds), pg_catalog.unnest(p_ids)) with ordinality
            as k(kind, id, ord)
        where v_answers[k.ord] is null
        order by k.kind collate "C", k.id collate "C", k.ord
    loop
        v_item := p_items -> (v_rest.ord - 1)::integer;
        v_answers[v_rest.ord] := case p_verb
            when 'reserve' then ducto._reserve_item(v_item, p_wait, p_wait)
            when 'deduct' then ducto._deduct_item(v_item, p_wait)
            when 'charge' then ducto._charge_item(v_item, p_wait, p_wait)
            when 'release' then ducto._release_item(v_item, p_wait)
        end;
    end loop;
    return pg_catalog.to_jsonb(v_answers);
end
$$;

-- The account that an item of a reserve or a charge names.
create or replace procedure ducto._named_accounts(p_items jsonb, inout kinds text[], inout ids text[])
language plpgsql as $$
begin
    select pg_catalog.array_agg(case when e.item ->> 'team_id' is null then 'u' else 't' end order by e.ord),
        pg_catalog.array_agg(coalesce(e.item ->> 'team_id', e.item ->> 'user_id', '') order by e.ord)
    into kinds, ids
    from pg_catalog.jsonb_array_elements(p_items) with ordinality as e(item, ord);
end
$$;

-- The account that holds the reservation that an item of a deduct or a release names; empty where there is none.
create or replace procedure ducto._holding_accounts(p_items jsonb, inout kinds text[], inout ids text[])
language plpgsql as $$
begin
    select pg_catalog.array_agg(case when e.is_team then coalesce(h.kind, 'u') else 'u' end order by e.ord),
        pg_catalog.array_agg(case when e.is_team then coalesce(h.id, '') else coalesce(e.item ->> 'user_id', '') end
            order by e.ord)
    into kinds, ids
    from (
        select x.item, x.ord, coalesce(pg_catalog.starts_with(x.item ->> 'reservation_id', 'rsv_t'), false) as is_team
        from pg_catalog.jsonb_array_elements(p_items) with ordinality as x(item, ord)
    ) as e
    left join lateral ducto._minted(case when e.is_team then e.item ->> 'reservation_id' end, 'rsv_') as h on true;
end
$$;
