-- Reading balances.

-- Until when nothing of an account changes by itself, at least; the last day there is stands for never.
create or replace function ducto._stable_until(a ducto.accounts) returns timestamptz
language sql immutable as $$
    select least(a.next_due_at, timestamptz '9999-12-31 00:00:00+00')
$$;

create or replace function ducto._get_balance(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language sql stable as $$
    select pg_catalog.jsonb_build_object('user_id', a.account_id, 'balance', a.base + a.granted,
        'lifetime_purchased', a.lifetime_purchased, 'stable_until', ducto._stable_until(a))
$$;

create or replace function public.ducto_get_balance(p_user_id text) returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
begin
    return coalesce(ducto._text_fault(pg_catalog.to_jsonb(p_user_id), 'user_id'),
        ducto._read('get_balance', 'u', p_user_id, null));
end
$$;

create or replace function ducto._get_available(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language sql stable as $$
    select pg_catalog.jsonb_build_object('user_id', p -> 'user_id', 'team_id', p -> 'team_id',
        'balance', a.base + a.granted, 'held', a.held, 'available', a.base + a.granted - a.held,
        'stable_until', ducto._stable_until(a))
$$;

create or replace function public.ducto_get_available(p_user_id text, p_team_id text default null) returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    p jsonb := pg_catalog.jsonb_build_object('user_id', p_user_id, 'team_id', p_team_id);
    v_fault jsonb := coalesce(
        ducto._text_fault(p -> 'user_id', 'user_id'),
        ducto._optional_text_fault(p -> 'team_id', 'team_id'));
begin
    if v_fault is not null then
        return v_fault;
    end if;
    if p_team_id is not null then
        return ducto._read('get_available', 't', p_team_id, p);
    end if;
    return ducto._read('get_available', 'u', p_user_id, p);
end
$$;
