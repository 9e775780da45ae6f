-- Booking a spend: what settling a reservation and charging directly share.

-- The refusal of a spend that a balance or a counter could not hold, asked before anything is written.
create or replace function ducto._spend_overflow(
    a ducto.accounts, p_user_id text, p_admitted_at timestamptz, p_model text, p_money bigint, p_charged bigint)
returns jsonb
language plpgsql stable as $$
begin
    if a.base + a.granted - p_money < -9007199254740991 then
        return ducto._refusal('overflow', 'The debt would exceed 2^53-1 credits.');
    end if;
    if a.account_kind = 't' and exists (
        select from ducto.members as m
        where m.account_kind = 't' and m.account_id = a.account_id and m.user_id = p_user_id
            and m.spent > 9007199254740991 - p_charged) then
        return ducto._refusal('overflow', 'The member''s spend would exceed 2^53-1 credits.');
    end if;
    if a.has_caps and exists (
        select from ducto.spend_caps as c
        where c.account_kind = a.account_kind and c.account_id = a.account_id
            and p_admitted_at >= c.window_start and p_admitted_at < c.window_end
            and (c.model = '' or c.model = p_model) and c.spent > 9007199254740991 - p_charged) then
        return ducto._refusal('overflow', 'The spend of a cap''s window would exceed 2^53-1 credits.');
    end if;
    return null;
end
$$;

-- Count a spend where it was admitted, repay debt, and append its row, which has the deltas of what was taken, who
-- acted, what was charged, and when it was admitted. The caller writes the row.
create or replace procedure ducto._book_spend(inout a ducto.accounts, inout r ducto.ledger)
language plpgsql as $$
begin
    if r.allowance > 0 then
        perform ducto._use_allowance(a, r.booked_at, r.allowance);
    end if;
    if a.account_kind = 't' then
        perform ducto._book_member(a.account_id, r.user_id, r.booked_at, r.charged, 0);
    end if;
    if a.has_caps then
        update ducto.spend_caps as c set spent = c.spent + r.charged
        where c.account_kind = a.account_kind and c.account_id = a.account_id
            and r.booked_at >= c.window_start and r.booked_at < c.window_end
            and (c.model = '' or c.model = r.model);
    end if;
    r.unbilled := r.actual - r.charged;
    if a.base < 0 and a.granted > 0 then
        call ducto._repay_debt(a, r, r.created_at);
    end if;
    call ducto._append(a, r);
end
$$;

-- What a spend's row records besides the money: never compared, never read by a rule.
create or replace function ducto._notes_fault(p jsonb) returns jsonb
language sql stable parallel safe as $$
    select coalesce(
        ducto._usage_fault(p -> 'usage'),
        ducto._optional_text_fault(p -> 'model', 'model'),
        ducto._optional_text_fault(p -> 'pricing_version', 'pricing_version'),
        ducto._metadata_fault(p -> 'metadata'))
$$;
