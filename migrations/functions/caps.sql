-- Spend caps: setting, removing, listing and asking them.

-- Ask without spending. No amount asks for the least there is, one credit.
create or replace function ducto._check_cap(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language plpgsql as $$
declare
    c ducto.spend_caps;
    v_asked bigint := coalesce((p ->> 'amount')::bigint, 1);
    v_reply jsonb;
    v_rank integer := 3;
begin
    -- The first denying cap that is exceeded, else the first that is exceeded, else the first.
    for c in select x.* from ducto._caps(a, p_now, p ->> 'model') as x loop
        if v_asked > 0 and c.spent + c.held + v_asked > c.cap_limit then
            if c.action = 'deny' then
                return ducto._cap_result(c, false);
            elsif v_rank > 1 then
                v_rank := 1;
                v_reply := ducto._cap_result(c, true);
            end if;
        elsif v_rank > 2 then
            v_rank := 2;
            v_reply := ducto._cap_result(c, true);
        end if;
    end loop;
    return coalesce(v_reply, '{"allowed": true}');
end
$$;

create or replace function public.ducto_check_cap(p_user_id text, p_model text default null, p_amount bigint default null)
returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    p jsonb := pg_catalog.jsonb_build_object('user_id', p_user_id, 'model', p_model, 'amount', p_amount);
begin
    return coalesce(
        ducto._text_fault(p -> 'user_id', 'user_id'),
        ducto._optional_text_fault(p -> 'model', 'model'),
        case when p_amount is not null then ducto._amount_fault(p -> 'amount') end,
        ducto._read('check_cap', 'u', p_user_id, p));
end
$$;

-- Put a cap in its place, its counter filled from what the current window's rows have spent and its open
-- reservations hold.
create or replace function ducto._set_cap(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language plpgsql as $$
declare
    v_model text := coalesce(p ->> 'model', '');
    w record;
    r record;
    v_spent bigint := 0;
    v_held bigint;
begin
    a := ducto._commit(a, p_now);
    w := ducto._window(p ->> 'cap_type', p_now);
    -- Newest first: the rows of an account are in the order of time.
    for r in
        select l.charged, l.booked_at, l.created_at, l.model from ducto.ledger as l
        where l.account_kind = a.account_kind and l.account_id = a.account_id order by l.sequence desc
    loop
        exit when r.created_at < w.window_start;
        if r.booked_at >= w.window_start and r.booked_at < w.window_end and (v_model = '' or r.model = v_model) then
            v_spent := v_spent + r.charged;
        end if;
    end loop;
    select coalesce(pg_catalog.sum(h.amount), 0) into v_held from ducto.reservations as h
    where h.account_kind = a.account_kind collate "POSIX" and h.account_id = a.account_id collate "POSIX"
        and h.state = 'active'
        and h.created_at >= w.window_start and h.created_at < w.window_end and (v_model = '' or h.model = v_model);
    insert into ducto.spend_caps (account_kind, account_id, cap_type, model, cap_limit, action, window_start, window_end,
        spent, held, inherited)
    values (a.account_kind, a.account_id, p ->> 'cap_type', v_model, (p ->> 'limit')::bigint, p ->> 'action',
        w.window_start, w.window_end, v_spent, v_held, v_spent + v_held)
    on conflict (account_kind, account_id, cap_type, model) do update set cap_limit = excluded.cap_limit,
        action = excluded.action, window_start = excluded.window_start, window_end = excluded.window_end,
        spent = excluded.spent, held = excluded.held, inherited = excluded.inherited;
    a.has_caps := true;
    perform ducto._save(a);
    return '{"value": null}';
end
$$;

create or replace function public.ducto_set_cap(
    p_user_id text, p_cap_type text, p_limit bigint, p_action text default 'deny', p_model text default null)
returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    p jsonb := pg_catalog.jsonb_build_object('user_id', p_user_id, 'cap_type', p_cap_type, 'limit', p_limit,
        'action', p_action, 'model', p_model);
begin
    return coalesce(
        ducto._text_fault(p -> 'user_id', 'user_id'),
        ducto._optional_text_fault(p -> 'model', 'model'),
        ducto._choice_fault(p -> 'cap_type', 'cap_type', array['hourly', 'daily', 'monthly']),
        ducto._choice_fault(p -> 'action', 'action', array['deny', 'warn', 'notify']),
        ducto._amount_fault(p -> 'limit', 'limit'),
        ducto._run('set_cap', 'u', p_user_id, p));
end
$$;

create or replace function ducto._remove_cap(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language plpgsql as $$
begin
    if not exists (
        select from ducto.spend_caps as c
        where c.account_kind = a.account_kind and c.account_id = a.account_id and c.cap_type = p ->> 'cap_type'
            and c.model = coalesce(p ->> 'model', '')) then
        return '{"value": false, "unwritten": true}';
    end if;
    a := ducto._commit(a, p_now);
    delete from ducto.spend_caps as c
    where c.account_kind = a.account_kind and c.account_id = a.account_id and c.cap_type = p ->> 'cap_type'
        and c.model = coalesce(p ->> 'model', '');
    a.has_caps := exists (
        select from ducto.spend_caps as c where c.account_kind = a.account_kind and c.account_id = a.account_id);
    perform ducto._save(a);
    return '{"value": true}';
end
$$;

create or replace function public.ducto_remove_cap(p_user_id text, p_cap_type text, p_model text default null)
returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    p jsonb := pg_catalog.jsonb_build_object('user_id', p_user_id, 'cap_type', p_cap_type, 'model', p_model);
begin
    return coalesce(
        ducto._text_fault(p -> 'user_id', 'user_id'),
        ducto._choice_fault(p -> 'cap_type', 'cap_type', array['hourly', 'daily', 'monthly']),
        ducto._optional_text_fault(p -> 'model', 'model'),
        ducto._run('remove_cap', 'u', p_user_id, p));
end
$$;

create or replace function public.ducto_list_caps(p_user_id text) returns jsonb
language plpgsql stable security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
begin
    return coalesce(ducto._text_fault(pg_catalog.to_jsonb(p_user_id), 'user_id'),
        (select pg_catalog.jsonb_build_object('rows',
            coalesce(pg_catalog.jsonb_agg(ducto._cap_definition(c.cap) order by c.ord), '[]'))
         from ducto._caps(ducto._blank('u', p_user_id), '-infinity', null, true) with ordinality as x(
            account_kind, account_id, cap_type, model, cap_limit, action, window_start, window_end, spent, held, inherited, ord)
         cross join lateral (select row(x.account_kind, x.account_id, x.cap_type, x.model, x.cap_limit, x.action,
            x.window_start, x.window_end, x.spent, x.held, x.inherited)::ducto.spend_caps as cap, x.ord) as c));
end
$$;
