-- Reserve: hold what a call may cost, in full or not at all.

create or replace function ducto._reserve_fault(p jsonb) returns jsonb
language sql immutable parallel safe as $$
    select coalesce(
        ducto._amount_fault(p -> 'amount'),
        ducto._text_fault(p -> 'user_id', 'user_id'),
        ducto._key_fault(p -> 'idempotency_key'),
        ducto._text_fault(p -> 'operation_type', 'operation_type'),
        ducto._optional_text_fault(p -> 'model', 'model'),
        ducto._optional_text_fault(p -> 'team_id', 'team_id'),
        ducto._optional_text_fault(p -> 'feature', 'feature'),
        ducto._optional_text_fault(p -> 'pricing_version', 'pricing_version'),
        ducto._optional_text_fault(p -> 'fingerprint', 'fingerprint'),
        case when p ->> 'min_balance' is not null then
            ducto._whole_fault(p -> 'min_balance', 'min_balance', -9007199254740991, 9007199254740991) end,
        case when p ->> 'ttl_seconds' is not null then
            ducto._whole_fault(p -> 'ttl_seconds', 'ttl_seconds', 1, 86400) end,
        case when p ->> 'grace_seconds' is not null then
            ducto._whole_fault(p -> 'grace_seconds', 'grace_seconds', 0, 3600) end,
        case when p ->> 'overage' is not null then
            ducto._choice_fault(p -> 'overage', 'overage', array['debt', 'clamp', 'reject']) end,
        case when p ->> 'max_settle' is not null then ducto._amount_fault(p -> 'max_settle', 'max_settle') end,
        case when p ->> 'max_concurrent' is not null then
            ducto._whole_fault(p -> 'max_concurrent', 'max_concurrent', 0, 9007199254740991) end,
        ducto._metadata_fault(p -> 'metadata'))
$$;

-- However often it is told, the first answer: what the reservation's row kept of it.
create or replace function ducto._reserve_reply(h ducto.reservations, p_tag text) returns jsonb
language sql stable as $$
    select pg_catalog.jsonb_build_object(
        'reservation_id', ducto._reservation_id(p_tag, h.number),
        'user_id', h.user_id,
        'team_id', ducto._team_of(h.account_kind, h.account_id),
        'amount', h.amount,
        'held', h.amount - h.allowance_held,
        'balance', h.balance_after,
        'available', h.available_after,
        'state', 'active',
        'expires_at', h.created_at + pg_catalog.make_interval(secs => h.ttl_seconds),
        'plan_id', h.plan_id,
        'pricing_version', h.pricing_version) || coalesce(h.findings, '{}')
$$;

-- The answer to a key that was used before, with what has become of the reservation since; null for a new key.
create or replace function ducto._reserved_before(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language plpgsql stable as $$
declare
    h ducto.reservations;
    v_refusal jsonb;
begin
    select r.* into h from ducto.reservations as r
    where r.account_kind = a.account_kind and r.account_id = a.account_id and r.user_id = p ->> 'user_id'
        and r.key = p ->> 'idempotency_key';
    if not found then
        return null;
    end if;
    -- A fingerprint of the request stands in for the amount: an estimate may differ between a call and its retry.
    v_refusal := ducto._mismatch(h.key, array['amount', 'fingerprint', 'operation_type', 'model'], array[
        case when h.fingerprint is null then h.amount end
            is distinct from case when p ->> 'fingerprint' is null then (p ->> 'amount')::bigint end,
        h.fingerprint is distinct from p ->> 'fingerprint',
        h.operation_type is distinct from p ->> 'operation_type',
        h.model is distinct from p ->> 'model']);
    return coalesce(v_refusal, ducto._reserve_reply(h, a.tag) || pg_catalog.jsonb_build_object('replayed', true, 'state',
        case when h.state = 'active' and h.due_at <= p_now then 'expired' else h.state end));
end
$$;

create or replace function ducto._reserve(a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language plpgsql as $$
declare
    h ducto.reservations;
    v_amount bigint := (p ->> 'amount')::bigint;
    v_admission record;
    v_earlier jsonb;
begin
    if p ->> 'idempotency_key' is not null then
        v_earlier := ducto._reserved_before(a, p_now, p);
        if v_earlier is not null then
            return v_earlier;
        end if;
    end if;
    select x.* into v_admission from ducto._admit(a, p_now, p ->> 'user_id', v_amount,
        coalesce((p ->> 'min_balance')::bigint, 5), p ->> 'model', p ->> 'feature', (p ->> 'max_concurrent')::bigint,
        true, false) as x;
    if v_admission.refusal is not null then
        return v_admission.refusal;
    end if;

    a := ducto._commit(a, p_now);
    a.holds_made := a.holds_made + 1;
    a.events := a.events + 1;
    h.account_kind := a.account_kind;
    h.account_id := a.account_id;
    h.number := a.holds_made;
    h.event := a.events;
    h.xid := pg_catalog.pg_current_xact_id();
    h.user_id := p ->> 'user_id';
    h.amount := v_amount;
    h.allowance_held := v_admission.allowance;
    h.base_held := v_amount - v_admission.allowance;
    h.operation_type := p ->> 'operation_type';
    h.model := p ->> 'model';
    h.plan_id := v_admission.plan_id;
    h.pricing_version := p ->> 'pricing_version';
    h.overage := coalesce(p ->> 'overage', 'debt');
    h.min_balance := coalesce((p ->> 'min_balance')::bigint, 5);
    h.max_settle := coalesce((p ->> 'max_settle')::bigint, least(greatest(10 * v_amount, 1000000), 9007199254740991));
    h.ttl_seconds := coalesce((p ->> 'ttl_seconds')::integer, 600);
    h.grace_seconds := coalesce((p ->> 'grace_seconds')::integer, 60);
    h.created_at := p_now;
    h.expires_at := p_now + pg_catalog.make_interval(secs => h.ttl_seconds);
    h.due_at := h.expires_at + pg_catalog.make_interval(secs => h.grace_seconds);
    h.key := p ->> 'idempotency_key';
    h.fingerprint := p ->> 'fingerprint';
    h.metadata := ducto._present(p -> 'metadata');
    h.findings := v_admission.findings;
    h.state := 'active';
    h.balance_after := a.base + a.granted;
    if a.granted > 0 then
        h := ducto._hold_of_grants(a, h);
    end if;
    a := ducto._count_hold(a, h, 1);
    a.next_due_at := least(a.next_due_at, h.due_at);
    h.available_after := h.balance_after - a.held;
    insert into ducto.reservations values (h.*);
    perform ducto._save(a);
    return ducto._reserve_reply(h, a.tag);
end
$$;

-- Let grants, by expiry, hold what they can of the money; the base holds the rest.
create or replace function ducto._hold_of_grants(a ducto.accounts, h ducto.reservations) returns ducto.reservations
language plpgsql as $$
declare
    g ducto.grants;
    v_taken bigint;
begin
    for g in
        select x.* from ducto.grants as x
        where x.account_kind = a.account_kind and x.account_id = a.account_id and x.remaining > 0
        order by x.expires_at, x.number
    loop
        v_taken := least(g.remaining - g.held, h.base_held);
        if v_taken > 0 then
            update ducto.grants as x set held = x.held + v_taken
            where x.account_kind = a.account_kind and x.account_id = a.account_id and x.number = g.number;
            h.grant_holds := coalesce(h.grant_holds, '[]')
                || pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_array(g.number, v_taken));
            h.base_held := h.base_held - v_taken;
        end if;
    end loop;
    return h;
end
$$;

create or replace function ducto._reserve_item(p jsonb, p_wait boolean, p_may_create boolean) returns jsonb
language plpgsql as $$
declare
    v_fault jsonb := ducto._reserve_fault(p);
begin
    if v_fault is not null then
        return v_fault;
    end if;
    if p ->> 'team_id' is not null then
        return ducto._run('reserve', 't', p ->> 'team_id', p, p_wait, p_may_create);
    end if;
    return ducto._run('reserve', 'u', p ->> 'user_id', p, p_wait, p_may_create);
end
$$;

create or replace function public.ducto_reserve(p_items jsonb, p_wait boolean default true) returns jsonb
language plpgsql volatile security definer set search_path = '' as $$
begin
    return (select pg_catalog.jsonb_agg(ducto._reserve_item(e.item, p_wait, true) order by e.ord)
        from pg_catalog.jsonb_array_elements(p_items) with ordinality as e(item, ord));
end
$$;
