-- What counts in the windows of spend caps, and whether the caps let an amount pass.

-- The caps that limit a call of a model, or all of the account, in the order in which they are reported: model caps
-- first, short windows before long ones. A window that has passed shows as the one of now with nothing in it.
create or replace function ducto._caps(a ducto.accounts, p_now timestamptz, p_model text, p_all boolean default false)
returns setof ducto.spend_caps
language sql stable as $$
    select c.account_kind, c.account_id, c.cap_type, c.model, c.cap_limit, c.action,
        case when p_now < c.window_end then c.window_start else w.window_start end,
        case when p_now < c.window_end then c.window_end else w.window_end end,
        case when p_now < c.window_end then c.spent else 0 end,
        case when p_now < c.window_end then c.held else 0 end,
        case when p_now < c.window_end then c.inherited else 0 end
    from ducto.spend_caps as c cross join lateral ducto._window(c.cap_type, p_now) as w
    where c.account_kind = a.account_kind and c.account_id = a.account_id
        and (p_all or c.model = '' or c.model = p_model)
    order by c.model = '', pg_catalog.array_position(array['hourly', 'daily', 'monthly'], c.cap_type::text), c.model
$$;

create or replace function ducto._cap_definition(c ducto.spend_caps) returns jsonb
language sql stable as $$
    select pg_catalog.jsonb_build_object('user_id', c.account_id, 'cap_type', c.cap_type, 'limit', c.cap_limit,
        'action', c.action, 'model', nullif(c.model, ''))
$$;

create or replace function ducto._cap_result(c ducto.spend_caps, p_allowed boolean) returns jsonb
language sql stable as $$
    select pg_catalog.jsonb_build_object('allowed', p_allowed, 'action', c.action, 'cap', ducto._cap_definition(c),
        'spent', c.spent, 'held', c.held, 'resets_at', c.window_end)
$$;

-- What a cap that is exceeded and lets pass adds to the findings: the first warning, every notice.
create or replace function ducto._found(p_findings jsonb, c ducto.spend_caps) returns jsonb
language sql stable as $$
    select case
        when c.action = 'notify' then pg_catalog.jsonb_set(coalesce(p_findings, '{}'), '{cap_notices}',
            coalesce(p_findings -> 'cap_notices', '[]') || ducto._cap_result(c, true))
        when p_findings ? 'cap_warning' then p_findings
        else coalesce(p_findings, '{}') || pg_catalog.jsonb_build_object('cap_warning', ducto._cap_result(c, true))
    end
$$;

-- The refusal of the first denying cap that an amount exceeds, else what the other caps say of it, else null.
create or replace function ducto._check_caps(a ducto.accounts, p_now timestamptz, p_model text, p_amount bigint)
returns jsonb
language plpgsql stable as $$
declare
    c ducto.spend_caps;
    v_findings jsonb;
begin
    if p_amount = 0 then
        return null;
    end if;
    for c in select x.* from ducto._caps(a, p_now, p_model) as x loop
        continue when c.spent + c.held + p_amount <= c.cap_limit;
        if c.action = 'deny' then
            return ducto._refusal('cap_reached',
                'The ' || c.cap_type || ' spend cap' || case when c.model = '' then '' else ' for the model ' || c.model end
                || ' of ' || c.cap_limit || ' credits does not allow ' || p_amount || ' more: ' || c.spent
                || ' are spent and ' || c.held || ' held. It resets at ' || ducto._iso(c.window_end) || '.',
                pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('limit', c.cap_limit, 'spent', c.spent,
                    'held', c.held, 'cap_type', c.cap_type, 'model', nullif(c.model, ''), 'resets_at', c.window_end)));
        end if;
        v_findings := ducto._found(v_findings, c);
    end loop;
    return v_findings;
end
$$;

-- The caps over their limit now that a spend is booked; notices only where it cost more than was reserved.
create or replace function ducto._exceeded_after(
    a ducto.accounts, p_admitted_at timestamptz, p_model text, p_overage bigint) returns jsonb
language plpgsql stable as $$
declare
    c ducto.spend_caps;
    v_findings jsonb;
begin
    for c in
        select x.* from ducto._caps(a, '-infinity', p_model) as x
        where p_admitted_at >= x.window_start and p_admitted_at < x.window_end and x.spent + x.held > x.cap_limit
            and (x.action <> 'notify' or p_overage > 0)
    loop
        v_findings := ducto._found(v_findings, c);
    end loop;
    return v_findings;
end
$$;
