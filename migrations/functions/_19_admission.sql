-- Whether an amount may be spent: the checks that a reserve and a direct charge share, in their order: plan and
-- feature, then concurrency, then caps, then funds, then overflow. The order is the precedence of refusals.

-- The decision itself, from numbers alone: the code of the refusal, or null. The set-based path and the single-item path
-- both ask it. `p_limit` is null where no place among the open calls is asked for; `p_caps` is what `_check_caps` found.
create or replace function ducto._admission_code(
    p_feature text, p_plan_id text, p_features text[], p_limit bigint, p_active bigint, p_caps jsonb, p_amount bigint,
    p_money bigint, p_free bigint, p_min_balance bigint, p_held bigint) returns text
language sql immutable parallel safe as $$
    select case
        when p_feature is not null and (p_plan_id is null or p_feature <> all (p_features)) then 'feature_not_entitled'
        when p_active >= p_limit then 'concurrency_limit'
        when p_caps ? 'error' then 'cap_reached'
        -- What needs no money is refused to a real debtor alone.
        when p_free - p_money < case when p_money > 0 then p_min_balance else least(0, p_min_balance) end then
            'insufficient_credits'
        when p_held > 9007199254740991 - p_amount then 'overflow'
    end
$$;

-- The refusal in words, which few calls need.
create or replace function ducto._admission_refusal(
    p_code text, p_feature text, p_plan_id text, p_limit bigint, p_active bigint, p_caps jsonb, p_money bigint,
    p_free bigint, p_balance bigint, p_min_balance bigint) returns jsonb
language plpgsql stable parallel safe as $$
declare
    v_floor bigint := case when p_money > 0 then p_min_balance else least(0, p_min_balance) end;
begin
    return case p_code
        when 'feature_not_entitled' then
            ducto._refusal(p_code, 'The feature ' || ducto._quoted(p_feature) || ' is not part of '
                || case when p_plan_id is null then 'no plan' else 'the plan ' || ducto._quoted(p_plan_id) end || '.',
                pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('feature', p_feature, 'plan_id', p_plan_id)))
        when 'concurrency_limit' then
            ducto._refusal(p_code, p_active || ' calls are running and ' || p_limit
                || ' may run at once; retry when one has ended.',
                pg_catalog.jsonb_build_object('active', p_active, 'max_concurrent', p_limit))
        when 'cap_reached' then p_caps
        when 'insufficient_credits' then
            ducto._refusal(p_code, p_money || ' credits are needed and ' || p_free
                || ' are available, of which ' || v_floor || ' must be left.',
                pg_catalog.jsonb_build_object('required', p_money, 'available', p_free, 'balance', p_balance,
                    'min_balance', v_floor))
        when 'overflow' then ducto._refusal(p_code, 'The credits held would exceed 2^53-1.')
    end;
end
$$;

create or replace function ducto._member(a ducto.accounts, p_user_id text) returns ducto.members
language plpgsql stable as $$
declare
    v_member ducto.members;
begin
    select m.* into v_member from ducto.members as m
    where m.account_kind = 't' and m.account_id = a.account_id and m.user_id = p_user_id;
    return v_member;
end
$$;

create or replace function ducto._no_member(p_user_id text, p_team_id text) returns jsonb
language sql stable parallel safe as $$
    select ducto._refusal('not_a_member', ducto._quoted(p_user_id) || ' is not a member of the team '
        || ducto._quoted(p_team_id) || '.')
$$;

-- The refusal of a member's own cap in the team, or null.
create or replace function ducto._check_member_cap(m ducto.members, p_now timestamptz, p_amount bigint) returns jsonb
language plpgsql stable as $$
declare
    v_spent bigint := m.spent;
    v_held bigint := m.held;
    v_monthly boolean := m.spend_cap_window = 'month';
begin
    if v_monthly then
        select x.spent, x.held into v_spent, v_held from ducto.member_months as x
        where x.account_kind = 't' and x.account_id = m.account_id and x.user_id = m.user_id
            and x.month = ducto._month(p_now);
        v_spent := coalesce(v_spent, 0);
        v_held := coalesce(v_held, 0);
    end if;
    if p_amount > 0 and v_spent + v_held + p_amount > m.spend_cap then
        return ducto._refusal('member_cap_reached', 'The member''s cap of ' || m.spend_cap
            || ' credits does not allow ' || p_amount || ' more: ' || v_spent || ' are spent and ' || v_held || ' held.',
            pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('limit', m.spend_cap, 'spent', v_spent,
                'held', v_held, 'resets_at',
                case when v_monthly then (select w.window_end from ducto._window('monthly', p_now) as w) end)));
    end if;
    return null;
end
$$;

-- Look up what the decision needs, and decide: `refusal`, or how the amount is paid. `p_forced` asks nobody.
create or replace function ducto._admit(
    a ducto.accounts, p_now timestamptz, p_user_id text, p_amount bigint, p_min_balance bigint, p_model text,
    p_feature text, p_max_concurrent bigint, p_counts_as_open boolean, p_forced boolean,
    out refusal jsonb, out allowance bigint, out plan_id text, out findings jsonb)
language plpgsql stable as $$
declare
    v_plan ducto.plans;
    m ducto.members;
    v_plan_id text := a.plan_id;
    v_limit bigint;
    v_active bigint;
    v_code text;
begin
    if a.account_kind = 't' then
        m := ducto._member(a, p_user_id);
        if m.is_member is not true then
            refusal := ducto._no_member(p_user_id, a.account_id);
            return;
        end if;
        -- Price, features and concurrency follow the plan of the member who acts.
        select x.plan_id into v_plan_id from ducto.accounts as x where x.account_kind = 'u' and x.account_id = p_user_id;
    end if;
    v_plan := ducto._plan_of(v_plan_id);
    plan_id := v_plan.id;
    allowance := least(p_amount, ducto._allowance_left(a, v_plan.free_allowance, p_now));
    if p_forced then
        return;
    end if;
    if a.account_kind = 't' then
        findings := case when m.spend_cap is not null then ducto._check_member_cap(m, p_now, p_amount) end;
    elsif a.has_caps then
        findings := ducto._check_caps(a, p_now, p_model, p_amount);
    end if;
    if p_counts_as_open then
        v_limit := coalesce(p_max_concurrent, v_plan.max_concurrent);
    end if;
    v_active := case when a.account_kind = 't' then m.open_holds else a.active end;
    v_code := ducto._admission_code(p_feature, plan_id, v_plan.features, v_limit, v_active, findings, p_amount,
        p_amount - allowance, a.base + a.granted - a.held, p_min_balance, a.held);
    if v_code is not null then
        refusal := ducto._admission_refusal(v_code, p_feature, plan_id, v_limit, v_active, findings, p_amount - allowance,
            a.base + a.granted - a.held, a.base + a.granted, p_min_balance);
    end if;
end
$$;
