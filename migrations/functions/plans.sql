-- Plans: which one holds for a user, and assigning one.

-- The plans of the active config.
create or replace function ducto._active_plans() returns jsonb
language sql stable as $$
    select coalesce((
        select c.config -> 'plans' from ducto.active_pricing as x
        join ducto.pricing_configs as c on c.number = x.number where x.singleton), '{}')
$$;

create or replace function public.ducto_get_plan(p_user_id text) returns jsonb
language plpgsql stable security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    v_fault jsonb := ducto._text_fault(pg_catalog.to_jsonb(p_user_id), 'user_id');
    v_plan ducto.plans;
    v_assigned text;
begin
    if v_fault is not null then
        return v_fault;
    end if;
    select a.plan_id into v_assigned from ducto.accounts as a where a.account_kind = 'u' and a.account_id = p_user_id;
    v_plan := ducto._plan_of(v_assigned);
    if v_plan.id is null then
        return pg_catalog.jsonb_build_object('user_id', p_user_id);
    end if;
    return (v_plan.definition - 'id')
        || pg_catalog.jsonb_build_object('user_id', p_user_id, 'plan_id', v_plan.id);
end
$$;

-- What the month has used stays: allowance is per account, not per plan.
create or replace function ducto._set_plan(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language plpgsql as $$
declare
    v_active jsonb := ducto._active_plans();
    v_plan_id text := p ->> 'plan_id';
    v_previous ducto.plans := ducto._plan_of(a.plan_id);
    v_assigned ducto.plans;
begin
    if v_plan_id is not null and not v_active ? v_plan_id then
        return ducto._refusal('plan_not_found', 'The active pricing config has no plan ' || ducto._quoted(v_plan_id)
            || '; it has ' || coalesce((
                select pg_catalog.string_agg(k, ', ' order by k collate "C")
                from pg_catalog.jsonb_object_keys(v_active) as k), 'none') || '.',
            pg_catalog.jsonb_build_object('plan_id', v_plan_id));
    end if;
    a := ducto._commit(a, p_now);
    a.plan_id := v_plan_id;
    perform ducto._save(a);
    v_assigned := ducto._plan_of(v_plan_id);
    return pg_catalog.jsonb_build_object('user_id', a.account_id, 'plan_id', v_assigned.id,
        'previous_plan_id', v_previous.id);
end
$$;

create or replace function public.ducto_set_plan(p_user_id text, p_plan_id text) returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    p jsonb := pg_catalog.jsonb_build_object('user_id', p_user_id, 'plan_id', p_plan_id);
begin
    return coalesce(
        ducto._text_fault(p -> 'user_id', 'user_id'),
        ducto._optional_text_fault(p -> 'plan_id', 'plan_id'),
        ducto._run('set_plan', 'u', p_user_id, p));
end
$$;

create or replace function public.ducto_list_plans(p_include_dropped boolean default false) returns jsonb
language sql stable security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
    select pg_catalog.jsonb_build_object('rows', coalesce(pg_catalog.jsonb_agg(p.definition order by p.id), '[]'))
    from ducto.plans as p where p_include_dropped or ducto._active_plans() ? p.id
$$;
