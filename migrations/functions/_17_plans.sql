-- Which plan holds for an account, and what its allowance has left.

-- The assigned plan, else the active config's default; a row of nulls where there is none.
create or replace function ducto._plan_of(p_plan_id text) returns ducto.plans
language plpgsql stable as $$
declare
    v_plan ducto.plans;
    v_plan_id text := p_plan_id;
begin
    if v_plan_id is null then
        select c.default_plan into v_plan_id from ducto.active_pricing as c where c.singleton;
    end if;
    if v_plan_id is not null then
        select p.* into v_plan from ducto.plans as p where p.id = v_plan_id;
    end if;
    return v_plan;
end
$$;

-- What the plan gives for the month, less what is used and held of it. A downgrade never goes below 0.
create or replace function ducto._allowance_left(a ducto.accounts, p_free_allowance bigint, p_at timestamptz)
returns bigint
language plpgsql stable as $$
begin
    if coalesce(p_free_allowance, 0) = 0 or a.account_kind = 't' then
        return 0;
    end if;
    return greatest(0, p_free_allowance - coalesce((
        select u.used + u.held from ducto.allowance_use as u
        where u.account_kind = a.account_kind and u.account_id = a.account_id and u.month = ducto._month(p_at)), 0));
end
$$;

create or replace function ducto._use_allowance(a ducto.accounts, p_at timestamptz, p_used bigint) returns void
language plpgsql as $$
begin
    insert into ducto.allowance_use as u (account_kind, account_id, month, used)
    values (a.account_kind, a.account_id, ducto._month(p_at), p_used)
    on conflict (account_kind, account_id, month) do update set used = u.used + excluded.used;
end
$$;
