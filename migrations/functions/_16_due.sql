-- What is due: holds past their grace and grants past their expiry. Reads and refusals show the account as if it had
-- been booked; only a verb that writes books it. Due things are booked in the order in which they fell due, so that it
-- makes no difference when anybody looks.

-- Book what is due at `p_now`, earliest first; at the same instant holds before grants. With `p_max_holds` it stops
-- after so many holds, and the rest stays due.
create or replace function ducto._book_due(
    a ducto.accounts, p_now timestamptz, p_max_holds bigint default null) returns ducto.accounts
language plpgsql as $$
declare
    v_due record;
    g ducto.grants;
    h ducto.reservations;
    v_holds bigint := 0;
begin
    for v_due in
        select r.due_at as at, false as is_grant, r.number from ducto.reservations as r
        where r.account_kind = a.account_kind collate "POSIX" and r.account_id = a.account_id collate "POSIX"
            and r.state = 'active'
            and r.due_at <= p_now
        union all
        select x.expires_at, true, x.number from ducto.grants as x
        where x.account_kind = a.account_kind and x.account_id = a.account_id and x.remaining > 0
            and x.expires_at <= p_now
        order by 1, 2, 3
    loop
        exit when v_holds = p_max_holds;
        if v_due.is_grant then
            -- Read here: a hold that ended before may have freed some of it.
            select x.* into g from ducto.grants as x
            where x.account_kind = a.account_kind and x.account_id = a.account_id and x.number = v_due.number;
            if g.remaining > g.held then
                a := ducto._expire_grant(a, g, p_now);
            end if;
        else
            update ducto.reservations as r set state = 'expired', ended_at = v_due.at
            where r.account_kind = a.account_kind and r.account_id = a.account_id and r.number = v_due.number
            returning r.* into h;
            a := ducto._note_end(a, h, 'credits.reservation_expired', h.amount, p_now);
            a := ducto._free_hold(a, h);
            a := ducto._settle_freed(a, h, p_now, v_due.at);
            v_holds := v_holds + 1;
        end if;
    end loop;
    a.next_due_at := ducto._next_due(a);
    return a;
end
$$;
