-- Renew: let the reservation of a call that is still running end later.

create or replace function ducto._renew(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language plpgsql as $$
declare
    h ducto.reservations;
    v_id text := p ->> 'reservation_id';
    v_expires_at timestamptz;
    v_details jsonb := pg_catalog.jsonb_build_object('reservation_id', v_id);
begin
    select x.* into h from ducto.reservations as x
    where x.account_kind = a.account_kind and x.account_id = a.account_id and x.number = (p ->> 'number')::bigint
        and x.user_id = p ->> 'user_id';
    if not found then
        return ducto._no_reservation(v_id);
    end if;
    if h.state = 'settled' then
        return ducto._refusal('already_settled', 'The reservation ' || v_id || ' is settled.', v_details
            || pg_catalog.jsonb_build_object('transaction_id', ducto._transaction_id(a.tag, h.settled_by)));
    end if;
    if h.state = 'released' then
        return ducto._refusal('reservation_released', 'The reservation ' || v_id || ' was released.', v_details);
    end if;
    -- The grace is for settling, not for renewing.
    if h.state = 'expired' or p_now >= h.expires_at then
        return ducto._refusal('reservation_expired', 'The reservation ' || v_id || ' has expired.', v_details);
    end if;
    v_expires_at := greatest(h.expires_at, p_now + pg_catalog.make_interval(secs => (p ->> 'ttl_seconds')::integer));
    if v_expires_at > h.created_at + interval '24 hours' then
        return ducto._refusal('renew_limit', 'The reservation ' || v_id || ' began at ' || ducto._iso(h.created_at)
            || ' and may live for 24 hours.', v_details);
    end if;
    a := ducto._commit(a, p_now);
    update ducto.reservations as x
    set expires_at = v_expires_at, due_at = v_expires_at + pg_catalog.make_interval(secs => h.grace_seconds)
    where x.account_kind = a.account_kind and x.account_id = a.account_id and x.number = h.number;
    perform ducto._save(a);
    return pg_catalog.jsonb_build_object('reservation_id', v_id, 'expires_at', v_expires_at);
end
$$;

create or replace function public.ducto_renew(
    p_user_id text, p_reservation_id text, p_ttl_seconds integer default 600) returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
declare
    p jsonb := pg_catalog.jsonb_build_object('user_id', p_user_id, 'reservation_id', p_reservation_id,
        'ttl_seconds', p_ttl_seconds);
    v_fault jsonb := coalesce(
        ducto._text_fault(p -> 'user_id', 'user_id'),
        ducto._whole_fault(p -> 'ttl_seconds', 'ttl_seconds', 1, 86400),
        case when p_reservation_id is null then ducto._odd_text_fault(null, 'reservation_id', 200) end);
    v_holder record;
begin
    if v_fault is not null then
        return v_fault;
    end if;
    v_holder := ducto._holder(p_user_id, p_reservation_id);
    if v_holder.kind is null then
        return ducto._no_reservation(p_reservation_id);
    end if;
    return ducto._run('renew', v_holder.kind, v_holder.id,
        p || pg_catalog.jsonb_build_object('number', v_holder.number));
end
$$;
