-- How credits move on an account: the steps that the verbs share. They change the account and the ledger row that they
-- are given as values, and grants, holds and counters in their tables.
--
-- Credits are taken from grants in the order of their expiry, then from the base, which alone may go below zero (debt).
-- Credits that come in repay debt first. So the base is negative only while no grant has credits that nobody holds.

-- The deltas of a row with one more: [[grant, delta], ...] in the order in which grants were first touched.
create or replace function ducto._with_delta(p_deltas jsonb, p_grant bigint, p_delta bigint) returns jsonb
language plpgsql immutable as $$
begin
    for i in 0 .. coalesce(pg_catalog.jsonb_array_length(p_deltas), 0) - 1 loop
        if (p_deltas -> i ->> 0)::bigint = p_grant then
            return pg_catalog.jsonb_set(p_deltas, array[i::text, '1'],
                pg_catalog.to_jsonb((p_deltas -> i ->> 1)::bigint + p_delta));
        end if;
    end loop;
    return coalesce(p_deltas, '[]') || pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_array(p_grant, p_delta));
end
$$;

-- Parts of grants, [[grant, amount], ...], as they are shown: with the expiry of each grant.
create or replace function ducto._grant_parts(p_kind text, p_id text, p_parts jsonb) returns jsonb
language plpgsql stable as $$
begin
    return coalesce((
        select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('grant', g.number, 'amount', e.part -> 1,
            'expires_at', g.expires_at) order by e.place)
        from pg_catalog.jsonb_array_elements(p_parts) with ordinality as e(part, place)
        join ducto.grants as g on g.account_kind = p_kind and g.account_id = p_id
            and g.number = (e.part ->> 0)::bigint), '[]');
end
$$;

-- An empty row of the account, to be filled and appended.
create or replace function ducto._new_row(a ducto.accounts, p_type text, p_operation text, p_now timestamptz)
returns ducto.ledger
language plpgsql immutable as $$
declare
    r ducto.ledger;
begin
    r.account_kind := a.account_kind;
    r.account_id := a.account_id;
    r.type := p_type;
    r.operation := p_operation;
    r.user_id := case when a.account_kind = 'u' then a.account_id else '' end;
    r.created_at := p_now;
    r.booked_at := p_now;
    r.base_delta := 0;
    r.actual := 0;
    r.charged := 0;
    r.unbilled := 0;
    r.allowance := 0;
    r.refunded := 0;
    r.min_balance := 0;
    r.estimated := false;
    r.late := false;
    r.forced := false;
    r.suspect := false;
    r.model_given := false;
    return r;
end
$$;

-- Give the row its number, and the balance after the deltas, which have been applied. It is written by `_write`.
create or replace procedure ducto._append(inout a ducto.accounts, inout r ducto.ledger)
language plpgsql as $$
begin
    a.sequence := a.sequence + 1;
    a.events := a.events + 1;
    r.sequence := a.sequence;
    r.event := a.events;
    r.xid := pg_catalog.pg_current_xact_id();
    r.amount := r.base_delta;
    if r.grant_deltas is not null then
        r.amount := r.amount
            + (select pg_catalog.sum((d ->> 1)::bigint) from pg_catalog.jsonb_array_elements(r.grant_deltas) as d);
    end if;
    r.balance_after := a.base + a.granted;
end
$$;

create or replace function ducto._write(r ducto.ledger) returns void
language plpgsql as $$
begin
    insert into ducto.ledger values (r.*);
end
$$;

-- Take money of what nobody holds: grants by expiry, then the base, below zero if need be.
create or replace procedure ducto._spend_free(inout a ducto.accounts, inout r ducto.ledger, p_money bigint)
language plpgsql as $$
declare
    g ducto.grants;
    v_taken bigint;
begin
    if a.granted > 0 and p_money > 0 then
        for g in
            select x.* from ducto.grants as x
            where x.account_kind = a.account_kind and x.account_id = a.account_id and x.remaining > 0
            order by x.expires_at, x.number
        loop
            exit when p_money = 0;
            v_taken := least(g.remaining - g.held, p_money);
            if v_taken > 0 then
                a := ducto._move_grant(a, g.number, -v_taken);
                r.grant_deltas := ducto._with_delta(r.grant_deltas, g.number, -v_taken);
                p_money := p_money - v_taken;
            end if;
        end loop;
    end if;
    a.base := a.base - p_money;
    r.base_delta := r.base_delta - p_money;
end
$$;

create or replace function ducto._move_grant(a ducto.accounts, p_number bigint, p_delta bigint) returns ducto.accounts
language plpgsql as $$
begin
    update ducto.grants as x set remaining = x.remaining + p_delta
    where x.account_kind = a.account_kind and x.account_id = a.account_id and x.number = p_number;
    a.granted := a.granted + p_delta;
    return a;
end
$$;

-- A new grant of expiring credits.
create or replace procedure ducto._add_grant(
    inout a ducto.accounts, inout r ducto.ledger, p_amount bigint, p_expires_at timestamptz)
language plpgsql as $$
begin
    a.grants_made := a.grants_made + 1;
    insert into ducto.grants (account_kind, account_id, number, amount, remaining, held, expires_at)
    values (a.account_kind, a.account_id, a.grants_made, p_amount, p_amount, 0, p_expires_at);
    a.granted := a.granted + p_amount;
    a.next_due_at := least(a.next_due_at, p_expires_at);
    r.grant_deltas := ducto._with_delta(r.grant_deltas, a.grants_made, p_amount);
end
$$;

-- Take in credits of one expiry (null: they do not expire), repaying debt from them first.
create or replace procedure ducto._receive(
    inout a ducto.accounts, inout r ducto.ledger, p_amount bigint, p_expires_at timestamptz)
language plpgsql as $$
declare
    v_repaid bigint := least(p_amount, greatest(0, -a.base));
begin
    if p_expires_at is null or v_repaid = p_amount then
        v_repaid := p_amount;
    else
        call ducto._add_grant(a, r, p_amount - v_repaid, p_expires_at);
    end if;
    a.base := a.base + v_repaid;
    r.base_delta := r.base_delta + v_repaid;
end
$$;

-- Move unheld credits of grants that live at `p_at` onto a negative base, within the deltas of a row.
create or replace procedure ducto._repay_debt(inout a ducto.accounts, inout r ducto.ledger, p_at timestamptz)
language plpgsql as $$
declare
    g ducto.grants;
    v_taken bigint;
begin
    if a.base >= 0 or a.granted = 0 then
        return;
    end if;
    for g in
        select x.* from ducto.grants as x
        where x.account_kind = a.account_kind and x.account_id = a.account_id and x.remaining > 0
            and x.expires_at > p_at
        order by x.expires_at, x.number
    loop
        v_taken := least(g.remaining - g.held, -a.base);
        if v_taken > 0 then
            a := ducto._move_grant(a, g.number, -v_taken);
            r.grant_deltas := ducto._with_delta(r.grant_deltas, g.number, -v_taken);
            a.base := a.base + v_taken;
            r.base_delta := r.base_delta + v_taken;
        end if;
    end loop;
end
$$;

-- Book the expiry of what nobody holds of a grant.
create or replace function ducto._expire_grant(a ducto.accounts, g ducto.grants, p_now timestamptz)
returns ducto.accounts
language plpgsql as $$
declare
    r ducto.ledger := ducto._new_row(a, 'expiry', 'expire', p_now);
begin
    a := ducto._move_grant(a, g.number, g.held - g.remaining);
    r.grant_deltas := ducto._with_delta(null, g.number, g.held - g.remaining);
    r.expires_at := g.expires_at;
    call ducto._append(a, r);
    perform ducto._write(r);
    return a;
end
$$;

-- Count a hold in every place where holds count (`p_sign` 1), or take it out of them (-1): not the grants.
create or replace function ducto._count_hold(a ducto.accounts, h ducto.reservations, p_sign integer)
returns ducto.accounts
language plpgsql as $$
declare
    v_month integer;
begin
    a.base_held := a.base_held + p_sign * h.base_held;
    a.held := a.held + p_sign * (h.amount - h.allowance_held);
    a.active := a.active + p_sign;
    if h.allowance_held > 0 then
        v_month := ducto._month(h.created_at);
        insert into ducto.allowance_use as u (account_kind, account_id, month, held)
        values (a.account_kind, a.account_id, v_month, p_sign * h.allowance_held)
        on conflict (account_kind, account_id, month) do update set held = u.held + excluded.held;
    end if;
    if h.account_kind = 't' then
        update ducto.members as m set open_holds = m.open_holds + p_sign
        where m.account_kind = 't' and m.account_id = a.account_id and m.user_id = h.user_id;
        perform ducto._book_member(a.account_id, h.user_id, h.created_at, 0, p_sign * h.amount);
    end if;
    if a.has_caps then
        update ducto.spend_caps as c set held = c.held + p_sign * h.amount
        where c.account_kind = a.account_kind and c.account_id = a.account_id
            and h.created_at >= c.window_start and h.created_at < c.window_end
            and (c.model = '' or c.model = h.model);
    end if;
    return a;
end
$$;

-- Count what a member spends or holds, over the lifetime and in the month of the admission.
create or replace function ducto._book_member(
    p_team_id text, p_user_id text, p_at timestamptz, p_spent bigint, p_held bigint) returns void
language plpgsql as $$
begin
    update ducto.members as m set spent = m.spent + p_spent, held = m.held + p_held
    where m.account_kind = 't' and m.account_id = p_team_id and m.user_id = p_user_id;
    insert into ducto.member_months as m (account_id, user_id, month, spent, held)
    values (p_team_id, p_user_id, ducto._month(p_at), p_spent, p_held)
    on conflict (account_kind, account_id, user_id, month)
        do update set spent = m.spent + excluded.spent, held = m.held + excluded.held;
end
$$;

-- Take a hold out of every counter. The caller sets its state, and books what the freed credits lead to.
create or replace function ducto._free_hold(a ducto.accounts, h ducto.reservations) returns ducto.accounts
language plpgsql as $$
declare
    v_part jsonb;
    v_expires_at timestamptz;
begin
    for v_part in select e.part from pg_catalog.jsonb_array_elements(h.grant_holds) as e(part) loop
        update ducto.grants as g set held = g.held - (v_part ->> 1)::bigint
        where g.account_kind = a.account_kind and g.account_id = a.account_id and g.number = (v_part ->> 0)::bigint
        returning g.expires_at into v_expires_at;
        a.next_due_at := least(a.next_due_at, v_expires_at);
    end loop;
    return ducto._count_hold(a, h, -1);
end
$$;

-- Book what the credits freed at `p_at` by the end of a hold lead to: those of a grant that has expired meanwhile are
-- gone, the others repay debt.
create or replace function ducto._settle_freed(
    a ducto.accounts, h ducto.reservations, p_now timestamptz, p_at timestamptz) returns ducto.accounts
language plpgsql as $$
declare
    g ducto.grants;
    v_part jsonb;
    r ducto.ledger;
begin
    for v_part in select e.part from pg_catalog.jsonb_array_elements(h.grant_holds) as e(part) loop
        select x.* into g from ducto.grants as x
        where x.account_kind = a.account_kind and x.account_id = a.account_id and x.number = (v_part ->> 0)::bigint;
        if g.expires_at <= p_at and g.remaining > g.held then
            a := ducto._expire_grant(a, g, p_now);
        end if;
    end loop;
    if a.base < 0 and a.granted > 0 then
        r := ducto._new_row(a, 'debt_repayment', 'repay', p_now);
        call ducto._repay_debt(a, r, p_at);
        if r.base_delta <> 0 then
            call ducto._append(a, r);
            perform ducto._write(r);
        end if;
    end if;
    return a;
end
$$;

-- A reservation ended without a ledger row.
create or replace function ducto._note_end(
    a ducto.accounts, h ducto.reservations, p_name text, p_amount bigint, p_now timestamptz) returns ducto.accounts
language plpgsql as $$
begin
    a.events := a.events + 1;
    insert into ducto.reservation_ends (account_kind, account_id, event, xid, number, amount, occurred_at, name, user_id)
    values (a.account_kind, a.account_id, a.events, pg_catalog.pg_current_xact_id(), h.number, p_amount, p_now, p_name,
        h.user_id);
    return a;
end
$$;
