-- The row of an account: reading it as a value, and writing the value back. A verb locks the row in a statement of its
-- own, changes the value as it goes, and writes it once. These are plpgsql, as is all that a single call runs and the
-- planner cannot write into another statement: plpgsql keeps its plans, a function in plain SQL is planned every time.

-- An account that nothing has been written to.
create or replace function ducto._blank(p_kind text, p_id text) returns ducto.accounts
language plpgsql immutable as $$
declare
    a ducto.accounts;
begin
    a.account_kind := p_kind;
    a.account_id := p_id;
    a.tag := ducto._tag(p_kind, p_id);
    a.base := 0;
    a.base_held := 0;
    a.held := 0;
    a.granted := 0;
    a.lifetime_purchased := 0;
    a.sequence := 0;
    a.holds_made := 0;
    a.grants_made := 0;
    a.events := 0;
    a.active := 0;
    a.last_op_at := '-infinity';
    a.next_due_at := 'infinity';
    a.has_caps := false;
    a.deleted := false;
    return a;
end
$$;

-- A verb has decided to write: make the row of an unknown account, let the windows of its caps move on, and take the
-- time. DU002 says that somebody else has made the row meanwhile; `_run` then begins again.
create or replace function ducto._commit(a ducto.accounts, p_now timestamptz) returns ducto.accounts
language plpgsql as $$
begin
    if a.last_op_at = '-infinity' then
        insert into ducto.accounts values (a.*) on conflict do nothing;
        if not found then
            raise exception 'made meanwhile' using errcode = 'DU002';
        end if;
    end if;
    if a.has_caps then
        update ducto.spend_caps as c
        set window_start = w.window_start, window_end = w.window_end, spent = 0, held = 0, inherited = 0
        from ducto.spend_caps as old cross join lateral ducto._window(old.cap_type, p_now) as w
        where c.account_kind = a.account_kind and c.account_id = a.account_id and c.window_end <= p_now
            and old.account_kind = c.account_kind and old.account_id = c.account_id
            and old.cap_type = c.cap_type and old.model = c.model;
    end if;
    a.last_op_at := p_now;
    return a;
end
$$;

create or replace function ducto._save(a ducto.accounts) returns void
language plpgsql as $$
begin
    update ducto.accounts as x
    set base = a.base, base_held = a.base_held, held = a.held, granted = a.granted,
        lifetime_purchased = a.lifetime_purchased, sequence = a.sequence, holds_made = a.holds_made,
        grants_made = a.grants_made, events = a.events, active = a.active, last_op_at = a.last_op_at,
        next_due_at = a.next_due_at, has_caps = a.has_caps, deleted = a.deleted, plan_id = a.plan_id
    where x.account_kind = a.account_kind and x.account_id = a.account_id;
end
$$;

-- The team that an account is, as answers name it.
create or replace function ducto._team_of(p_kind text, p_id text) returns text
language sql immutable parallel safe as $$
    select case when p_kind = 't' then p_id end
$$;

-- The earliest moment at which something ends by itself.
create or replace function ducto._next_due(a ducto.accounts) returns timestamptz
language plpgsql stable as $$
begin
    return least(
        (select r.due_at from ducto.reservations as r
         where r.account_kind = a.account_kind collate "POSIX" and r.account_id = a.account_id collate "POSIX"
             and r.state = 'active'
         order by r.due_at limit 1),
        (select pg_catalog.min(g.expires_at) from ducto.grants as g
         where g.account_kind = a.account_kind and g.account_id = a.account_id and g.remaining > 0 and g.remaining > g.held),
        'infinity');
end
$$;
