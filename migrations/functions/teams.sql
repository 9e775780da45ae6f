-- Teams: making and deleting them, and who is in them.

-- With a key the team's id is made from it, so that the same call finds the same team wherever it is kept.
create or replace function public.ducto_create_team(
    p_name text, p_initial_balance bigint default 0, p_idempotency_key text default null) returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    p jsonb := pg_catalog.jsonb_build_object('name', p_name, 'initial_balance', p_initial_balance,
        'idempotency_key', p_idempotency_key);
    v_fault jsonb := coalesce(
        ducto._text_fault(p -> 'name', 'name'),
        ducto._amount_fault(p -> 'initial_balance', 'initial_balance'),
        ducto._key_fault(p -> 'idempotency_key'));
    v_id text := 'team_' || case when p_idempotency_key is null
        then pg_catalog.replace(pg_catalog.gen_random_uuid()::text, '-', '')
        else pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(
            pg_catalog.convert_to('ducto_create_team ' || p_idempotency_key, 'UTF8')), 'hex'), 32) end;
    v_now timestamptz := ducto._clock();
    v_team ducto.teams;
    a ducto.accounts;
    r ducto.ledger;
begin
    if v_fault is not null then
        return v_fault;
    end if;
    insert into ducto.teams (account_id, name, initial_balance, key, created_at)
    values (v_id, p_name, p_initial_balance, p_idempotency_key, v_now) on conflict do nothing;
    if not found then
        select t.* into v_team from ducto.teams as t where t.account_kind = 't' and t.account_id = v_id;
        return coalesce(
            ducto._mismatch(p_idempotency_key, array['initial_balance', 'name'],
                array[v_team.initial_balance <> p_initial_balance, v_team.name <> p_name]),
            pg_catalog.jsonb_build_object('team_id', v_id, 'name', p_name, 'balance', p_initial_balance,
                'replayed', true));
    end if;
    a := ducto._commit(ducto._blank('t', v_id), v_now);
    if p_initial_balance > 0 then
        r := ducto._new_row(a, 'grant', 'create_team', v_now);
        call ducto._receive(a, r, p_initial_balance, null);
        r.key := p_idempotency_key;
        call ducto._append(a, r);
        perform ducto._write(r);
    end if;
    perform ducto._save(a);
    return pg_catalog.jsonb_build_object('team_id', v_id, 'name', p_name, 'balance', p_initial_balance);
end
$$;

create or replace function ducto._team_balance(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language sql stable as $$
    select pg_catalog.jsonb_build_object('team_id', a.account_id, 'name', t.name, 'balance', a.base + a.granted,
        'held', a.held, 'available', a.base + a.granted - a.held, 'member_count', (
            select pg_catalog.count(*) from ducto.members as m
            where m.account_kind = 't' and m.account_id = a.account_id and m.is_member))
    from ducto.teams as t where t.account_kind = 't' and t.account_id = a.account_id
$$;

create or replace function public.ducto_team_balance(p_team_id text) returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
begin
    return coalesce(ducto._text_fault(pg_catalog.to_jsonb(p_team_id), 'team_id'),
        ducto._read('team_balance', 't', p_team_id, null));
end
$$;

create or replace function ducto._member_cap_fault(p jsonb) returns jsonb
language sql immutable as $$
    select coalesce(
        case when p ->> 'spend_cap' is not null then ducto._amount_fault(p -> 'spend_cap', 'spend_cap') end,
        ducto._choice_fault(p -> 'spend_cap_window', 'spend_cap_window', array['lifetime', 'month']))
$$;

-- Add a member, or change one. Who comes back finds what was spent before still counted.
create or replace function ducto._add_member(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language plpgsql as $$
begin
    a := ducto._commit(a, p_now);
    insert into ducto.members as m (account_id, user_id, role, spend_cap, spend_cap_window, joined_at)
    values (a.account_id, p ->> 'user_id', p ->> 'role', (p ->> 'spend_cap')::bigint, p ->> 'spend_cap_window', p_now)
    on conflict (account_kind, account_id, user_id) do update set
        joined_at = case when m.is_member then m.joined_at else p_now end, is_member = true, role = excluded.role,
        spend_cap = excluded.spend_cap, spend_cap_window = excluded.spend_cap_window;
    perform ducto._save(a);
    return pg_catalog.jsonb_build_object('team_id', a.account_id, 'user_id', p -> 'user_id', 'role', p -> 'role',
        'spend_cap', p -> 'spend_cap', 'spend_cap_window', p -> 'spend_cap_window');
end
$$;

create or replace function public.ducto_add_member(
    p_team_id text, p_user_id text, p_role text default 'member', p_spend_cap bigint default null,
    p_spend_cap_window text default 'lifetime') returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    p jsonb := pg_catalog.jsonb_build_object('team_id', p_team_id, 'user_id', p_user_id, 'role', p_role,
        'spend_cap', p_spend_cap, 'spend_cap_window', p_spend_cap_window);
begin
    return coalesce(
        ducto._text_fault(p -> 'user_id', 'user_id'),
        ducto._text_fault(p -> 'role', 'role'),
        ducto._member_cap_fault(p),
        ducto._text_fault(p -> 'team_id', 'team_id'),
        ducto._run('add_member', 't', p_team_id, p));
end
$$;

create or replace function ducto._set_member_cap(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language plpgsql as $$
declare
    m ducto.members := ducto._member(a, p ->> 'user_id');
begin
    if m.is_member is not true then
        return ducto._no_member(p ->> 'user_id', a.account_id);
    end if;
    return ducto._add_member(a, p_now, p || pg_catalog.jsonb_build_object('role', m.role));
end
$$;

create or replace function public.ducto_set_member_cap(
    p_team_id text, p_user_id text, p_spend_cap bigint, p_spend_cap_window text default 'lifetime') returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    p jsonb := pg_catalog.jsonb_build_object('team_id', p_team_id, 'user_id', p_user_id, 'spend_cap', p_spend_cap,
        'spend_cap_window', p_spend_cap_window);
begin
    return coalesce(
        ducto._text_fault(p -> 'user_id', 'user_id'),
        ducto._member_cap_fault(p),
        ducto._text_fault(p -> 'team_id', 'team_id'),
        ducto._run('set_member_cap', 't', p_team_id, p));
end
$$;

create or replace function ducto._remove_member(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language plpgsql as $$
declare
    m ducto.members := ducto._member(a, p ->> 'user_id');
begin
    if m.is_member is not true then
        return '{"value": false, "unwritten": true}';
    end if;
    a := ducto._commit(a, p_now);
    update ducto.members as x set is_member = false
    where x.account_kind = 't' and x.account_id = a.account_id and x.user_id = m.user_id;
    perform ducto._save(a);
    return '{"value": true}';
end
$$;

create or replace function public.ducto_remove_member(p_team_id text, p_user_id text) returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    p jsonb := pg_catalog.jsonb_build_object('team_id', p_team_id, 'user_id', p_user_id);
begin
    return coalesce(
        ducto._text_fault(p -> 'user_id', 'user_id'),
        ducto._text_fault(p -> 'team_id', 'team_id'),
        ducto._run('remove_member', 't', p_team_id, p));
end
$$;

create or replace function ducto._list_members(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language sql stable as $$
    select pg_catalog.jsonb_build_object('rows', coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'team_id', a.account_id, 'user_id', m.user_id, 'role', m.role, 'spend_cap', m.spend_cap,
        'spend_cap_window', m.spend_cap_window, 'joined_at', m.joined_at,
        'spent', case when m.spend_cap_window = 'month' then coalesce(x.spent, 0) else m.spent end,
        'held', case when m.spend_cap_window = 'month' then coalesce(x.held, 0) else m.held end)
        order by m.user_id), '[]'))
    from ducto.members as m
    left join ducto.member_months as x on x.account_kind = 't' and x.account_id = a.account_id
        and x.user_id = m.user_id and x.month = ducto._month(p_now)
    where m.account_kind = 't' and m.account_id = a.account_id and m.is_member
$$;

create or replace function public.ducto_list_members(p_team_id text) returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
begin
    return coalesce(ducto._text_fault(pg_catalog.to_jsonb(p_team_id), 'team_id'),
        ducto._read('list_members', 't', p_team_id, null));
end
$$;

-- The ledger of a deleted team stays; its id is never given again.
create or replace function ducto._delete_team(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language plpgsql as $$
begin
    if a.base + a.granted <> 0 or a.active > 0 then
        return ducto._refusal('team_not_empty', 'The team has ' || (a.base + a.granted) || ' credits and ' || a.active
            || ' open reservations; settle both first.', pg_catalog.jsonb_build_object('balance', a.base + a.granted,
                'held', a.held, 'active', a.active));
    end if;
    a := ducto._commit(a, p_now);
    a.deleted := true;
    perform ducto._save(a);
    return pg_catalog.jsonb_build_object('team_id', a.account_id, 'deleted', true);
end
$$;

create or replace function public.ducto_delete_team(p_team_id text) returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
begin
    return coalesce(ducto._text_fault(pg_catalog.to_jsonb(p_team_id), 'team_id'),
        ducto._run('delete_team', 't', p_team_id, null));
end
$$;
