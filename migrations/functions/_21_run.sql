-- One verb on one account: lock it, book what is due, let the verb decide and write. Every verb on a single account
-- goes through here, so that the order of lock, time and due is stated once.

-- The verbs on an account. Each has the account, locked, with everything due booked, the time, and its arguments, whose
-- form has been checked. Its answer has `error` for a refusal, `replayed` for the answer of an earlier call, and
-- `unwritten` where it is a success that writes nothing; nothing may have been written then.
create or replace function ducto._act(p_verb text, a ducto.accounts, p_now timestamptz, p jsonb) returns jsonb
language plpgsql as $$
begin
    case p_verb
        when 'reserve' then return ducto._reserve(a, p_now, p);
        when 'deduct' then return ducto._deduct(a, p_now, p);
        when 'release' then return ducto._release(a, p_now, p);
        when 'charge' then return ducto._charge(a, p_now, p);
        when 'renew' then return ducto._renew(a, p_now, p);
        when 'add' then return ducto._add(a, p_now, p);
        when 'adjust' then return ducto._adjust(a, p_now, p);
        when 'refund' then return ducto._refund(a, p_now, p);
        when 'allowance' then return ducto._allowance(a, p_now, p);
        when 'set_plan' then return ducto._set_plan(a, p_now, p);
        when 'set_cap' then return ducto._set_cap(a, p_now, p);
        when 'remove_cap' then return ducto._remove_cap(a, p_now, p);
        when 'add_member' then return ducto._add_member(a, p_now, p);
        when 'set_member_cap' then return ducto._set_member_cap(a, p_now, p);
        when 'remove_member' then return ducto._remove_member(a, p_now, p);
        when 'delete_team' then return ducto._delete_team(a, p_now, p);
        when 'get_balance' then return ducto._get_balance(a, p_now, p);
        when 'get_available' then return ducto._get_available(a, p_now, p);
        when 'get_reservation' then return ducto._get_reservation(a, p_now, p);
        when 'check_allowance' then return ducto._check_allowance(a, p_now, p);
        when 'check_cap' then return ducto._check_cap(a, p_now, p);
        when 'team_balance' then return ducto._team_balance(a, p_now, p);
        when 'list_members' then return ducto._list_members(a, p_now, p);
    end case;
end
$$;

-- Run a verb. With `p_wait` false an account that is locked elsewhere answers {"deferred": true}; so does, with
-- `p_may_create` false, one whose row would have to be made (a batch that holds other locks must not wait for that).
create or replace function ducto._run(
    p_verb text, p_kind text, p_id text, p jsonb, p_wait boolean default true, p_may_create boolean default true)
returns jsonb
language plpgsql as $$
declare
    a ducto.accounts;
    v_now timestamptz;
    v_reply jsonb;
begin
    loop
        if p_wait then
            select x.* into a from ducto.accounts as x
            where x.account_kind = p_kind and x.account_id = p_id for no key update;
        else
            select x.* into a from ducto.accounts as x
            where x.account_kind = p_kind and x.account_id = p_id for no key update skip locked;
            if not found and exists (
                select from ducto.accounts as x where x.account_kind = p_kind and x.account_id = p_id) then
                return '{"deferred": true}';
            end if;
        end if;
        if a.account_id is null then
            exit when p_verb in ('deduct', 'release', 'renew', 'refund') or p_kind = 't';
            begin
                v_reply := ducto._act(p_verb, ducto._blank(p_kind, p_id), ducto._clock(), p);
                if not p_may_create and not (v_reply ? 'error' or v_reply ? 'unwritten') then
                    raise exception '{"deferred": true}' using errcode = 'DU001';
                end if;
                return v_reply - 'unwritten';
            exception
                when sqlstate 'DU001' then return sqlerrm::jsonb;
                when sqlstate 'DU002' then null;  -- Somebody else has made the row: once more, with that.
            end;
        else
            exit when a.deleted and p_verb not in ('deduct', 'release', 'renew', 'refund');
            -- Read after the lock: a wait for it takes time.
            v_now := greatest(ducto._clock(), a.last_op_at);
            if a.next_due_at <= v_now then
                a.next_due_at := ducto._next_due(a);
            end if;
            if a.next_due_at > v_now then
                return ducto._act(p_verb, a, v_now, p) - 'unwritten';
            end if;
            return ducto._act_on_due(p_verb, a, v_now, p);
        end if;
    end loop;
    return case
        when p_verb in ('deduct', 'release', 'renew') then ducto._no_reservation(p ->> 'reservation_id')
        when p_verb = 'refund' then ducto._no_transaction(p ->> 'transaction_id')
        else ducto._no_team(p_id)
    end;
end
$$;

-- The same where something is due: it is booked first, and all of it is undone unless the verb writes.
create or replace function ducto._act_on_due(
    p_verb text, a ducto.accounts, p_now timestamptz, p jsonb, p_is_read boolean default false) returns jsonb
language plpgsql as $$
declare
    v_reply jsonb;
begin
    v_reply := ducto._act(p_verb, ducto._book_due(a, p_now), p_now, p);
    if p_is_read or v_reply ? 'error' or v_reply ? 'replayed' or v_reply ? 'unwritten' then
        raise exception '%', v_reply - 'unwritten' using errcode = 'DU001';
    end if;
    return v_reply;
exception
    when sqlstate 'DU001' then
        return sqlerrm::jsonb;
end
$$;

-- Read an account: without a lock unless something is due, and without a trace even then.
create or replace function ducto._read(p_verb text, p_kind text, p_id text, p jsonb) returns jsonb
language plpgsql as $$
declare
    a ducto.accounts;
    v_now timestamptz;
begin
    select x.* into a from ducto.accounts as x where x.account_kind = p_kind and x.account_id = p_id;
    if p_kind = 't' and p_verb <> 'get_reservation' and (not found or a.deleted) then
        return ducto._no_team(p_id);
    end if;
    if a.account_id is null then
        a := ducto._blank(p_kind, p_id);
    end if;
    v_now := greatest(ducto._clock(), a.last_op_at);
    if a.next_due_at <= v_now then
        a.next_due_at := ducto._next_due(a);
    end if;
    if a.next_due_at > v_now then
        return ducto._act(p_verb, a, v_now, p) - 'unwritten';
    end if;
    begin
        -- The lock ends with what is undone.
        select x.* into a from ducto.accounts as x
        where x.account_kind = p_kind and x.account_id = p_id for no key update;
        v_now := greatest(ducto._clock(), a.last_op_at);
        raise exception '%', ducto._act(p_verb, ducto._book_due(a, v_now), v_now, p) - 'unwritten'
            using errcode = 'DU001';
    exception
        when sqlstate 'DU001' then
            return sqlerrm::jsonb;
    end;
end
$$;
