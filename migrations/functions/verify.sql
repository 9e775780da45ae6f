-- Verify: the audit of the books. Every stored number is derived again from rows and open reservations. Reads only,
-- repairs nothing; what is due and not yet booked is not a fault. The checks of accounts take a range of accounts and
-- are one snapshot, because the function that calls them is STABLE. The names are the same for every store.

create or replace function ducto._label(p_kind text, p_id text) returns text
language sql immutable parallel safe as $$
    select case when p_kind = 't' then 'team:' else 'user:' end || p_id
$$;

-- What a spend charged without having been admitted: by force, late, or more than was reserved. A forced adjustment
-- has no charge.
create or replace function ducto._beyond_admission(r ducto.ledger) returns bigint
language sql immutable parallel safe as $$
    select case when r.forced or r.late then greatest(r.charged, -r.amount)
        when r.reserved is null then 0 else greatest(0, r.charged - r.reserved) end
$$;

-- Sequence, balances, and the parts that rows move.
create or replace function ducto._verify_rows(p_kind text, p_id text, p_last_kind text, p_last_id text)
returns table (kind text, id text, invariant text, expected text, found text, line bigint)
language sql stable as $$
    with audited as materialized (
        select a.* from ducto.accounts as a
        where (a.account_kind, a.account_id) > (p_kind, p_id) and (a.account_kind, a.account_id) <= (p_last_kind, p_last_id)
    ), rows as materialized (
        select l.*, pg_catalog.row_number() over account as place, sum(l.amount) over account as running,
            sum(l.base_delta) over account as base,
            least(0, min(l.min_balance) over account) as floor,
            sum(ducto._beyond_admission(l)) over account as unadmitted,
            l.base_delta + coalesce((select sum((d ->> 1)::bigint)
                from pg_catalog.jsonb_array_elements(l.grant_deltas) as d), 0) as moved
        from ducto.ledger as l
        where (l.account_kind, l.account_id) > (p_kind, p_id) and (l.account_kind, l.account_id) <= (p_last_kind, p_last_id)
        window account as (partition by l.account_kind, l.account_id order by l.sequence)
    ), sums as materialized (
        select r.account_kind, r.account_id, count(*) as rows, sum(r.amount) as amount, sum(r.base_delta) as base,
            least(0, min(r.min_balance)) as floor, max(r.unadmitted) as unadmitted, coalesce(sum(r.amount) filter (where r.type = 'purchase'), 0) as purchased
        from rows as r group by 1, 2
    ), floors as materialized (
        select h.account_kind, h.account_id, min(h.min_balance) as floor from ducto.reservations as h
        where (h.account_kind, h.account_id) > (p_kind, p_id) and (h.account_kind, h.account_id) <= (p_last_kind, p_last_id)
            and h.state = 'active'
        group by 1, 2
    )
    select x.* from (
        -- Only the first bad row of an account is told; those after it follow from it.
        (select distinct on (r.account_kind, r.account_id) r.account_kind, r.account_id, 'sequence_gapless',
            r.place::text, r.sequence::text, r.sequence
         from rows as r where r.sequence <> r.place order by 1, 2, r.sequence)
        union all
        (select distinct on (r.account_kind, r.account_id) r.account_kind, r.account_id, 'balance_chain',
            r.running::text, r.balance_after::text, r.sequence
         from rows as r where r.balance_after <> r.running order by 1, 2, r.sequence)
        union all
        select a.account_kind, a.account_id, 'sequence_gapless', coalesce(s.rows, 0)::text, a.sequence::text, null
        from audited as a left join sums as s using (account_kind, account_id) where a.sequence <> coalesce(s.rows, 0)
        union all
        select a.account_kind, a.account_id, 'balance_is_sum', coalesce(s.amount, 0)::text, (a.base + a.granted)::text, null
        from audited as a left join sums as s using (account_kind, account_id)
        where a.base + a.granted <> coalesce(s.amount, 0)
        union all
        select a.account_kind, a.account_id, 'base_from_rows', coalesce(s.base, 0)::text, a.base::text, null
        from audited as a left join sums as s using (account_kind, account_id) where a.base <> coalesce(s.base, 0)
        union all
        select a.account_kind, a.account_id, 'purchased_from_rows', coalesce(s.purchased, 0)::text,
            a.lifetime_purchased::text, null
        from audited as a left join sums as s using (account_kind, account_id)
        where a.lifetime_purchased <> coalesce(s.purchased, 0)
        union all
        select r.account_kind, r.account_id, 'parts_sum_to_amount', r.amount::text, r.moved::text, r.sequence
        from rows as r where r.amount <> r.moved
        union all
        select r.account_kind, r.account_id, 'sign_of_type', r.type || ': ' || t.sign::text, r.amount::text, r.sequence
        from rows as r
        join (values ('purchase', 1), ('grant', 1), ('bonus', 1), ('deduction', -1), ('charge', -1), ('allowance', 0),
            ('refund', 1), ('expiry', -1), ('debt_repayment', 0), ('transfer_out', -1), ('transfer_in', 1))
            as t(type, sign) on t.type = r.type
        where r.amount * t.sign < 0 or (t.sign = 0 and r.amount <> 0)
        union all
        select r.account_kind, r.account_id, 'charged_and_unbilled', r.actual::text, (r.charged + r.unbilled)::text,
            r.sequence
        from rows as r where r.charged + r.unbilled <> r.actual
        union all
        select r.account_kind, r.account_id, 'amount_is_charged_money',
            case when r.type = 'refund' then r.refunded + r.allowance else r.allowance - r.charged end::text,
            r.amount::text, r.sequence
        from rows as r
        where r.type in ('deduction', 'charge', 'allowance', 'refund')
            and r.amount <> case when r.type = 'refund' then r.refunded + r.allowance else r.allowance - r.charged end
        union all
        -- The base never falls below the lowest floor that anything was admitted with, save by what was not admitted.
        (select distinct on (r.account_kind, r.account_id) r.account_kind, r.account_id, 'debt_is_explained',
            'at least ' || (r.floor - r.unadmitted)::text, r.base::text, r.sequence
         from rows as r where r.base < r.floor - r.unadmitted order by 1, 2, r.sequence)
        union all
        -- What is held of the base counts as gone, as it did when it was admitted.
        select a.account_kind, a.account_id, 'debt_is_explained', 'at least ' || f.floor::text,
            (a.base - a.base_held)::text, null
        from audited as a
        left join sums as s using (account_kind, account_id)
        left join floors as h using (account_kind, account_id)
        cross join lateral (select least(0, s.floor, h.floor) - coalesce(s.unadmitted, 0) as floor) as f
        where a.base - a.base_held < f.floor
        union all
        select r.account_kind, r.account_id, 'no_team_row_in_user_ledger', r.account_id, r.user_id, r.sequence
        from rows as r where r.account_kind = 'u' and r.user_id <> r.account_id
        union all
        select r.account_kind, r.account_id, 'key_points_at_row',
            coalesce(r.transfer_id, ducto._transaction_id(ducto._tag(r.account_kind, r.account_id), r.sequence)),
            r.reply ->> 'transaction_id', r.sequence
        from rows as r
        where r.reply ->> 'transaction_id' <> ducto._transaction_id(ducto._tag(r.account_kind, r.account_id), r.sequence)
            or (r.reply ? 'transaction_id' and r.key is null)
        union all
        select r.account_kind, r.account_id, 'key_unique', 'one row under ' || ducto._quoted(r.key), count(*)::text,
            max(r.sequence)
        from rows as r where r.key is not null
        group by r.account_kind, r.account_id, r.user_id, r.operation, r.key having count(*) > 1
    ) as x
$$;

-- Grants, what is held, and reservations.
create or replace function ducto._verify_holds(p_kind text, p_id text, p_last_kind text, p_last_id text)
returns table (kind text, id text, invariant text, expected text, found text, line text)
language sql stable as $$
    with audited as materialized (
        select a.* from ducto.accounts as a
        where (a.account_kind, a.account_id) > (p_kind, p_id) and (a.account_kind, a.account_id) <= (p_last_kind, p_last_id)
    ), holds as materialized (
        select h.* from ducto.reservations as h
        where (h.account_kind, h.account_id) > (p_kind, p_id) and (h.account_kind, h.account_id) <= (p_last_kind, p_last_id)
    ), open as materialized (
        select h.account_kind, h.account_id, count(*) as active, sum(h.amount - h.allowance_held) as held,
            sum(h.base_held) as base_held, min(h.due_at) as due_at
        from holds as h where h.state = 'active' group by 1, 2
    ), moved as materialized (
        select l.account_kind, l.account_id, (d.delta ->> 0)::bigint as number, sum((d.delta ->> 1)::bigint) as amount
        from ducto.ledger as l cross join lateral pg_catalog.jsonb_array_elements(l.grant_deltas) as d(delta)
        where (l.account_kind, l.account_id) > (p_kind, p_id) and (l.account_kind, l.account_id) <= (p_last_kind, p_last_id)
        group by 1, 2, 3
    ), parts as materialized (
        select h.account_kind, h.account_id, (p.part ->> 0)::bigint as number, sum((p.part ->> 1)::bigint) as amount
        from holds as h cross join lateral pg_catalog.jsonb_array_elements(h.grant_holds) as p(part)
        where h.state = 'active' group by 1, 2, 3
    ), grants as materialized (
        select g.*, coalesce(m.amount, 0) as from_rows, coalesce(p.amount, 0) as from_holds
        from ducto.grants as g
        left join moved as m using (account_kind, account_id, number)
        left join parts as p using (account_kind, account_id, number)
        where (g.account_kind, g.account_id) > (p_kind, p_id) and (g.account_kind, g.account_id) <= (p_last_kind, p_last_id)
    ), of_grants as materialized (
        select g.account_kind, g.account_id, sum(g.remaining) as remaining, max(g.remaining - g.held) as free,
            min(g.expires_at) filter (where g.remaining > g.held) as due_at
        from grants as g where g.remaining <> 0 group by 1, 2
    ), settling as materialized (
        select l.account_kind, l.account_id, l.reservation, l.sequence, l.charged,
            count(*) over (partition by l.account_kind, l.account_id, l.reservation) as rows
        from ducto.ledger as l
        where (l.account_kind, l.account_id) > (p_kind, p_id) and (l.account_kind, l.account_id) <= (p_last_kind, p_last_id)
            and l.reservation is not null and l.type = 'deduction'
    )
    select x.account_kind, x.account_id, x.invariant, x.expected, x.found, x.line from (
        select a.account_kind, a.account_id, 'held_is_open_holds' as invariant, coalesce(o.held, 0)::text as expected,
            a.held::text as found, null as line
        from audited as a left join open as o using (account_kind, account_id) where a.held <> coalesce(o.held, 0)
        union all
        select a.account_kind, a.account_id, 'base_held_is_open_holds', coalesce(o.base_held, 0)::text,
            a.base_held::text, null
        from audited as a left join open as o using (account_kind, account_id)
        where a.base_held <> coalesce(o.base_held, 0)
        union all
        select a.account_kind, a.account_id, 'open_is_active', coalesce(o.active, 0)::text, a.active::text, null
        from audited as a left join open as o using (account_kind, account_id) where a.active <> coalesce(o.active, 0)
        union all
        select h.account_kind, h.account_id, 'hold_parts_sum', h.amount::text, p.parts::text,
            ducto._reservation_id(ducto._tag(h.account_kind, h.account_id), h.number)
        from holds as h
        cross join lateral (
            select h.base_held + h.allowance_held + coalesce(sum((e.part ->> 1)::bigint), 0) as parts
            from pg_catalog.jsonb_array_elements(h.grant_holds) as e(part)) as p
        where h.state = 'active' and p.parts <> h.amount
        union all
        select g.account_kind, g.account_id, 'grant_from_rows[' || g.number::text || ']', g.from_rows::text,
            g.remaining::text, null
        from grants as g where g.remaining <> g.from_rows
        union all
        select g.account_kind, g.account_id, 'grant_held_is_open_holds[' || g.number::text || ']', g.from_holds::text,
            g.held::text, null
        from grants as g where g.held <> g.from_holds
        union all
        select g.account_kind, g.account_id, 'grant_bounds[' || g.number::text || ']',
            '0 <= held <= remaining <= amount',
            g.held::text || ', ' || g.remaining::text || ', ' || g.amount::text, null
        from grants as g where not (0 <= g.held and g.held <= g.remaining and g.remaining <= g.amount)
        union all
        select a.account_kind, a.account_id, 'live_grants', coalesce(g.remaining, 0)::text, a.granted::text, null
        from audited as a left join of_grants as g using (account_kind, account_id)
        where a.granted <> coalesce(g.remaining, 0)
        union all
        select a.account_kind, a.account_id, 'debt_only_without_grants', 'base >= 0 or no free grant', a.base::text, null
        from audited as a join of_grants as g using (account_kind, account_id) where a.base < 0 and g.free > 0
        union all
        select a.account_kind, a.account_id, 'balance_bounds', 'within 2^53-1', (a.base + a.granted)::text, null
        from audited as a where a.base + a.granted not between -9007199254740991 and 9007199254740991
        union all
        -- Later than that, what is due would not be booked in time.
        select a.account_kind, a.account_id, 'next_due_at', 'at most ' || ducto._iso(least(o.due_at, g.due_at)),
            a.next_due_at::text, null
        from audited as a
        left join open as o using (account_kind, account_id)
        left join of_grants as g using (account_kind, account_id)
        where a.next_due_at > least(o.due_at, g.due_at)
        union all
        select h.account_kind, h.account_id, 'no_stuck_hold', 'ended by ' || ducto._iso(h.due_at), 'active',
            ducto._reservation_id(ducto._tag(h.account_kind, h.account_id), h.number)
        from holds as h where h.state = 'active' and h.due_at < ducto._clock() - interval '365 days'
        union all
        select s.account_kind, s.account_id, 'one_row_per_reservation', '1', s.rows::text,
            ducto._transaction_id(ducto._tag(s.account_kind, s.account_id), max(s.sequence))
        from settling as s where s.rows > 1 group by s.account_kind, s.account_id, s.reservation, s.rows
        union all
        select h.account_kind, h.account_id, 'settled_has_row', 'settled', h.state,
            ducto._reservation_id(ducto._tag(h.account_kind, h.account_id), h.number)
        from holds as h join settling as s on s.account_kind = h.account_kind and s.account_id = h.account_id
            and s.reservation = h.number
        where h.state <> 'settled'
        union all
        select h.account_kind, h.account_id, 'settled_has_row', 'one row', 'none',
            ducto._reservation_id(ducto._tag(h.account_kind, h.account_id), h.number)
        from holds as h
        where h.state = 'settled' and not exists (
            select from settling as s where s.account_kind = h.account_kind and s.account_id = h.account_id
                and s.reservation = h.number and s.sequence = h.settled_by)
        union all
        select h.account_kind, h.account_id, 'charged_at_most_max_settle', h.max_settle::text, s.charged::text,
            ducto._transaction_id(ducto._tag(s.account_kind, s.account_id), s.sequence)
        from holds as h join settling as s on s.account_kind = h.account_kind and s.account_id = h.account_id
            and s.reservation = h.number
        where s.charged > h.max_settle
        union all
        select h.account_kind, h.account_id, 'key_unique', 'one reservation under ' || ducto._quoted(h.key),
            count(*)::text, ducto._reservation_id(ducto._tag(h.account_kind, h.account_id), max(h.number))
        from holds as h where h.key is not null group by h.account_kind, h.account_id, h.user_id, h.key
        having count(*) > 1
    ) as x
$$;

-- Refunds, allowances, caps and members.
create or replace function ducto._verify_counters(p_kind text, p_id text, p_last_kind text, p_last_id text)
returns table (kind text, id text, invariant text, expected text, found text, line bigint)
language sql stable as $$
    with rows as materialized (
        select l.*, ducto._month(l.booked_at) as month, ducto._beyond_admission(l) as beyond from ducto.ledger as l
        where (l.account_kind, l.account_id) > (p_kind, p_id) and (l.account_kind, l.account_id) <= (p_last_kind, p_last_id)
            and (l.charged > 0 or l.allowance <> 0 or l.refunds is not null)
    ), open as materialized (
        select h.*, ducto._month(h.created_at) as month from ducto.reservations as h
        where (h.account_kind, h.account_id) > (p_kind, p_id) and (h.account_kind, h.account_id) <= (p_last_kind, p_last_id)
            and h.state = 'active'
    ), tallies as materialized (
        select t.* from ducto.refund_tallies as t
        where (t.account_kind, t.account_id) > (p_kind, p_id) and (t.account_kind, t.account_id) <= (p_last_kind, p_last_id)
    ), refunded as materialized (
        select r.account_kind, r.account_id, r.refunds as sequence, sum(r.amount) as money, max(r.sequence) as line
        from rows as r where r.refunds is not null group by 1, 2, 3
    ), used as materialized (
        select x.account_kind, x.account_id, x.month, sum(x.used) as used, sum(x.held) as held from (
            select r.account_kind, r.account_id, r.month, r.allowance as used, 0 as held from rows as r
            union all
            select o.account_kind, o.account_id, o.month, 0, o.allowance_held from open as o
        ) as x group by 1, 2, 3
    ), uses as materialized (
        select u.* from ducto.allowance_use as u
        where (u.account_kind, u.account_id) > (p_kind, p_id) and (u.account_kind, u.account_id) <= (p_last_kind, p_last_id)
    ), most as (
        -- The most that any published plan has ever given for a month: plans, and who is on them, change meanwhile.
        select coalesce(max((p.value ->> 'free_allowance')::bigint), 0) as allowance
        from ducto.pricing_configs as c
        cross join lateral pg_catalog.jsonb_each(coalesce(ducto._present(c.config -> 'plans'), '{}')) as p
    ), spends as materialized (
        select r.account_kind, r.account_id, r.booked_at, r.model, r.charged, r.beyond, r.type, r.reservation,
            h.created_at as admitted_at, h.model as admitted_model
        from rows as r
        join (select distinct c.account_kind, c.account_id from ducto.spend_caps as c) as c using (account_kind, account_id)
        left join ducto.reservations as h on h.account_kind = r.account_kind and h.account_id = r.account_id
            and h.number = r.reservation
        where r.charged > 0
    ), of_caps as materialized (
        select c.account_kind, c.account_id, c.cap_type, c.model, sum(r.charged) as charged,
            -- Caps do not refuse use that is booked as allowance, nor a call that ran on another model.
            sum(case when r.type = 'allowance' or (r.reservation is not null and (
                    r.admitted_at >= c.window_start and r.admitted_at < c.window_end
                    and (c.model = '' or c.model = r.admitted_model)) is not true)
                then r.charged else r.beyond end) as beyond
        from ducto.spend_caps as c
        join spends as r on r.account_kind = c.account_kind and r.account_id = c.account_id
            and r.booked_at >= c.window_start and r.booked_at < c.window_end and (c.model = '' or c.model = r.model)
        group by 1, 2, 3, 4
    ), held_of_caps as materialized (
        select c.account_kind, c.account_id, c.cap_type, c.model, sum(o.amount) as amount
        from ducto.spend_caps as c
        join open as o on o.account_kind = c.account_kind and o.account_id = c.account_id
            and o.created_at >= c.window_start and o.created_at < c.window_end and (c.model = '' or c.model = o.model)
        group by 1, 2, 3, 4
    ), caps as materialized (
        select c.*, coalesce(f.charged, 0) as from_rows, coalesce(h.amount, 0) as from_holds,
            coalesce(f.beyond, 0) as beyond
        from ducto.spend_caps as c
        left join of_caps as f using (account_kind, account_id, cap_type, model)
        left join held_of_caps as h using (account_kind, account_id, cap_type, model)
        where (c.account_kind, c.account_id) > (p_kind, p_id) and (c.account_kind, c.account_id) <= (p_last_kind, p_last_id)
    ), spent as materialized (
        select x.account_kind, x.account_id, x.user_id, x.month, sum(x.spent) as spent, sum(x.held) as held from (
            select r.account_kind, r.account_id, r.user_id, m.month, r.charged as spent, 0 as held
            from rows as r cross join lateral (values (r.month), (null)) as m(month)
            where r.account_kind = 't' and r.charged > 0
            union all
            select o.account_kind, o.account_id, o.user_id, m.month, 0, o.amount
            from open as o cross join lateral (values (o.month), (null)) as m(month) where o.account_kind = 't'
        ) as x group by 1, 2, 3, 4
    ), counted as materialized (
        select m.account_kind, m.account_id, m.user_id, null::integer as month, m.spent, m.held from ducto.members as m
        where (m.account_kind, m.account_id) > (p_kind, p_id) and (m.account_kind, m.account_id) <= (p_last_kind, p_last_id)
        union all
        select m.account_kind, m.account_id, m.user_id, m.month, m.spent, m.held from ducto.member_months as m
        where (m.account_kind, m.account_id) > (p_kind, p_id) and (m.account_kind, m.account_id) <= (p_last_kind, p_last_id)
    )
    select x.account_kind, x.account_id, x.invariant, x.expected, x.found, x.line from (
        select t.account_kind, t.account_id, 'refunds_at_most_charged' as invariant, l.charged::text as expected,
            (t.money + t.allowance)::text as found, t.sequence as line
        from tallies as t left join ducto.ledger as l using (account_kind, account_id, sequence)
        where t.money + t.allowance > coalesce(l.charged, 0)
        union all
        select account_kind, account_id, 'refunds_from_rows', coalesce(r.money, 0)::text, coalesce(t.money, 0)::text,
            coalesce(r.line, sequence)
        from tallies as t full join refunded as r using (account_kind, account_id, sequence)
        where coalesce(r.money, 0) <> coalesce(t.money, 0) or t.money is null
        union all
        select r.account_kind, r.account_id, 'refund_to_who_paid', l.user_id, r.user_id, r.sequence
        from rows as r left join ducto.ledger as l on l.account_kind = r.account_kind and l.account_id = r.account_id
            and l.sequence = r.refunds
        where r.refunds is not null and l.user_id is distinct from r.user_id
        union all
        select account_kind, account_id, 'allowance_used[' || month::text || ']', coalesce(f.used, 0)::text,
            coalesce(u.used, 0)::text, null
        from uses as u full join used as f using (account_kind, account_id, month)
        where coalesce(u.used, 0) <> coalesce(f.used, 0)
        union all
        select account_kind, account_id, 'allowance_held[' || month::text || ']', coalesce(f.held, 0)::text,
            coalesce(u.held, 0)::text, null
        from uses as u full join used as f using (account_kind, account_id, month)
        where coalesce(u.held, 0) <> coalesce(f.held, 0)
        union all
        select u.account_kind, u.account_id, 'allowance_within_plan[' || u.month::text || ']',
            '0 to ' || m.allowance::text, (u.used + u.held)::text, null
        from uses as u cross join most as m where u.used + u.held not between 0 and m.allowance
        union all
        select c.account_kind, c.account_id, f.invariant || '[' || c.cap_type || ':'
            || coalesce(nullif(c.model, ''), '*') || ']', f.expected, f.found, null
        from caps as c
        cross join lateral (values
            ('cap_spent', c.from_rows::text, c.spent::text, c.spent <> c.from_rows),
            ('cap_held', c.from_holds::text, c.held::text, c.held <> c.from_holds),
            ('cap_excess_is_explained', 'at most ' || (greatest(c.cap_limit, c.inherited) + c.beyond)::text,
                (c.spent + c.held)::text,
                c.action = 'deny' and c.spent + c.held > greatest(c.cap_limit, c.inherited) + c.beyond)
        ) as f(invariant, expected, found, is_fault)
        where f.is_fault
        union all
        select a.account_kind, a.account_id, 'has_caps', c.there::text, a.has_caps::text, null
        from ducto.accounts as a
        cross join lateral (select exists (select from ducto.spend_caps as c
            where c.account_kind = a.account_kind and c.account_id = a.account_id) as there) as c
        where (a.account_kind, a.account_id) > (p_kind, p_id) and (a.account_kind, a.account_id) <= (p_last_kind, p_last_id)
            and a.has_caps <> c.there
        union all
        select coalesce(s.account_kind, c.account_kind), coalesce(s.account_id, c.account_id),
            'member_spend[' || coalesce(s.user_id, c.user_id) || coalesce(', ' || coalesce(s.month, c.month)::text, '') || ']',
            '(' || coalesce(s.spent, 0)::text || ', ' || coalesce(s.held, 0)::text || ')',
            '(' || coalesce(c.spent, 0)::text || ', ' || coalesce(c.held, 0)::text || ')', null
        from spent as s full join counted as c on c.account_kind = s.account_kind and c.account_id = s.account_id
            and c.user_id = s.user_id and coalesce(c.month, 0) = coalesce(s.month, 0)
        where coalesce(s.spent, 0) <> coalesce(c.spent, 0) or coalesce(s.held, 0) <> coalesce(c.held, 0)
        union all
        select m.account_kind, m.account_id, 'member_open_holds[' || m.user_id || ']', coalesce(o.holds, 0)::text,
            m.open_holds::text, null
        from ducto.members as m
        left join (
            select o.account_kind, o.account_id, o.user_id, count(*) as holds from open as o group by 1, 2, 3
        ) as o using (account_kind, account_id, user_id)
        where (m.account_kind, m.account_id) > (p_kind, p_id) and (m.account_kind, m.account_id) <= (p_last_kind, p_last_id)
            and m.open_holds <> coalesce(o.holds, 0)
    ) as x
$$;

create or replace function ducto._fault_json(
    p_invariant text, p_account text, p_expected text, p_found text, p_row text) returns jsonb
language sql stable as $$
    select pg_catalog.jsonb_build_object('invariant', p_invariant, 'account', p_account,
        'expected', coalesce(p_expected, 'None'), 'found', coalesce(p_found, 'None'), 'row', p_row)
$$;

-- The faults of up to `p_limit` accounts after the one that is given, in one snapshot; `next_kind` and `next_id` go on
-- from there, and are null at the end.
create or replace function public.ducto_verify(
    p_after_kind text default null, p_after_id text default null, p_limit integer default 1000) returns jsonb
language plpgsql stable security definer set search_path = '' set jit = off as $$
declare
    v_last record;
    v_faults jsonb;
begin
    select b.account_kind as kind, b.account_id as id, b.place into v_last from (
        select a.account_kind, a.account_id, pg_catalog.row_number() over () as place from (
            select x.account_kind, x.account_id from ducto.accounts as x
            where (x.account_kind, x.account_id) > (coalesce(p_after_kind, ''), coalesce(p_after_id, ''))
            order by x.account_kind, x.account_id limit p_limit) as a
    ) as b order by b.place desc limit 1;
    if v_last.kind is null then
        return '{"faults": [], "next_kind": null, "next_id": null}';
    end if;
    select pg_catalog.jsonb_agg(ducto._fault_json(f.invariant, ducto._label(f.kind, f.id), f.expected, f.found, f.line)
        order by f.kind, f.id, f.invariant) into v_faults
    from (
        select r.kind, r.id, r.invariant, r.expected, r.found,
            ducto._transaction_id(ducto._tag(r.kind, r.id), r.line) as line
        from ducto._verify_rows(coalesce(p_after_kind, ''), coalesce(p_after_id, ''), v_last.kind, v_last.id) as r
        union all
        select h.kind, h.id, h.invariant, h.expected, h.found, h.line
        from ducto._verify_holds(coalesce(p_after_kind, ''), coalesce(p_after_id, ''), v_last.kind, v_last.id) as h
        union all
        select c.kind, c.id, c.invariant, c.expected, c.found,
            ducto._transaction_id(ducto._tag(c.kind, c.id), c.line)
        from ducto._verify_counters(coalesce(p_after_kind, ''), coalesce(p_after_id, ''), v_last.kind, v_last.id) as c
    ) as f;
    return pg_catalog.jsonb_build_object('faults', coalesce(v_faults, '[]'),
        'next_kind', case when v_last.place = p_limit then v_last.kind end,
        'next_id', case when v_last.place = p_limit then v_last.id end);
end
$$;

-- What protects the books: who may call what, and that the ledger cannot be changed. It is asked of the catalogue.
create or replace function ducto._verify_catalogue()
returns table (invariant text, expected text, found text)
language sql stable as $$
    with routines as (
        select p.oid, n.nspname || '.' || p.proname as name, p.prosecdef, p.proconfig, n.nspname = 'public' as is_public,
            p.proacl, p.proowner
        from pg_catalog.pg_proc as p join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
        where n.nspname = 'ducto' or (n.nspname = 'public' and pg_catalog.starts_with(p.proname, 'ducto_'))
    ), tables as (
        select c.oid, c.relname, c.relowner, c.relacl, c.relrowsecurity, c.relforcerowsecurity, c.relkind
        from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
        where n.nspname = 'ducto' and c.relkind in ('r', 'p', 'v', 'm', 'f')
    )
    select 'no_public_execute', 'no role but the owner and those it was granted to', r.name || ' for '
        || case when x.grantee = 0 then 'PUBLIC' else pg_catalog.pg_get_userbyid(x.grantee)::text end
    from routines as r
    cross join lateral pg_catalog.aclexplode(coalesce(r.proacl, pg_catalog.acldefault('f', r.proowner))) as x
    where x.grantee = 0 or (not r.is_public and x.grantee <> r.proowner)
        or pg_catalog.pg_get_userbyid(x.grantee) in ('anon', 'authenticated')
    union all
    select 'empty_search_path', 'SECURITY DEFINER with search_path = ''''', r.name from routines as r
    where r.is_public and not (r.prosecdef and coalesce(r.proconfig @> array['search_path=""'], false))
    union all
    select 'empty_search_path', 'no SECURITY DEFINER', r.name from routines as r where not r.is_public and r.prosecdef
    union all
    select 'no_overloads', 'one function of a name', r.name from routines as r group by r.name having count(*) > 1
    union all
    select 'row_security', 'enabled and forced', t.relname from tables as t
    where t.relkind in ('r', 'p') and not (t.relrowsecurity and t.relforcerowsecurity)
    union all
    select 'no_table_grants', 'no role but the owner', t.relname || ' for '
        || case when x.grantee = 0 then 'PUBLIC' else pg_catalog.pg_get_userbyid(x.grantee)::text end
    from tables as t cross join lateral pg_catalog.aclexplode(t.relacl) as x where x.grantee <> t.relowner
    union all
    select 'ledger_is_append_only', 'a trigger that is always on', coalesce(
        (select t.tgenabled::text from pg_catalog.pg_trigger as t
         where t.tgrelid = 'ducto.ledger'::pg_catalog.regclass and t.tgname = 'ledger_is_append_only'), 'none')
    where not exists (
        -- 58: before update, delete and truncate, once a statement.
        select from pg_catalog.pg_trigger as t
        where t.tgrelid = 'ducto.ledger'::pg_catalog.regclass and t.tgname = 'ledger_is_append_only'
            and t.tgenabled = 'A' and t.tgtype = 58)
$$;

-- The faults of the whole book: what was issued, less what was spent and expired, plus what was refunded, is what all
-- balances hold; transfers sum to 0; the sums for reports; and the catalogue. One snapshot of sums.
create or replace function public.ducto_verify_totals() returns jsonb
language sql stable security definer set search_path = '' set jit = off as $$
    select pg_catalog.jsonb_build_object('faults', coalesce(pg_catalog.jsonb_agg(
        ducto._fault_json(f.invariant, null, f.expected, f.found, f.line)), '[]'))
    from (
        select 'issued_less_used' as invariant, l.moved::text as expected, a.balances::text as found, null::text as line
        from (select coalesce(sum(x.amount), 0) as moved from ducto.ledger as x) as l
        cross join (select coalesce(sum(x.base + x.granted), 0) as balances from ducto.accounts as x) as a
        where l.moved <> a.balances
        union all
        select 'transfers_sum_to_zero', '0', sum(t.amount)::text, t.id from (
            select l.amount, coalesce(l.transfer_id,
                ducto._transaction_id(ducto._tag(l.account_kind, l.account_id), l.sequence)) as id
            from ducto.ledger as l where l.type in ('transfer_in', 'transfer_out')
        ) as t group by t.id having sum(t.amount) <> 0
        union all
        select r.invariant, r.expected, r.found, null from ducto._verify_roll_up() as r
        union all
        select c.invariant, c.expected, c.found, null from ducto._verify_catalogue() as c
    ) as f
$$;
