-- Reservations: credits held for a running call. Rows of ended ones are pruned after a while; the ledger stays.

create table ducto.reservations (
    number bigint not null,
    event bigint not null,
    xid xid8 not null,
    amount bigint not null check (amount between 0 and 9007199254740991),
    allowance_held bigint not null check (allowance_held between 0 and 9007199254740991),
    base_held bigint not null check (base_held between 0 and 9007199254740991),
    min_balance bigint not null,
    max_settle bigint not null check (max_settle between 0 and 9007199254740991),
    balance_after bigint not null,
    available_after bigint not null,
    settled_by bigint,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    due_at timestamptz not null,
    ended_at timestamptz,
    ttl_seconds integer not null,
    grace_seconds integer not null,
    account_kind text collate "C" not null,
    account_id text collate "C" not null,
    state text collate "C" not null check (state in ('active', 'settled', 'released', 'expired')),
    overage text collate "C" not null check (overage in ('debt', 'clamp', 'reject')),
    user_id text collate "C" not null,
    operation_type text collate "C" not null,
    model text collate "C",
    plan_id text collate "C",
    pricing_version text collate "C",
    key text collate "C",
    fingerprint text collate "C",
    grant_holds jsonb,
    metadata jsonb,
    findings jsonb,
    primary key (account_kind, account_id, number)
) with (fillfactor = 70);

comment on column ducto.reservations.due_at is 'expires_at and the grace: when the hold ends by itself.';
comment on column ducto.reservations.ttl_seconds is 'As first asked: replays tell the first expiry, renewals move expires_at.';
comment on column ducto.reservations.grant_holds is '[[grant, amount], ...]: what of the amount grants hold.';
comment on column ducto.reservations.settled_by is 'The number of the ledger row that settled it.';
comment on column ducto.reservations.findings is 'What caps said of it when it was made, for replays.';

-- In "POSIX" for the same reason as the keys of the ledger.
create unique index reservations_keys on ducto.reservations (account_kind collate "POSIX", account_id collate "POSIX", user_id, key)
    where key is not null;
-- As small as the number of calls that are running.
create index reservations_open on ducto.reservations (account_kind collate "POSIX", account_id collate "POSIX", due_at) where state = 'active';
create index reservations_events on ducto.reservations (xid);
create index reservations_times on ducto.reservations using brin (created_at) with (pages_per_range = 32, autosummarize = on);

-- Ends of reservations without a ledger row, as events: 'credits.released' and 'credits.reservation_expired'.
create table ducto.reservation_ends (
    account_kind text collate "C" not null,
    account_id text collate "C" not null,
    event bigint not null,
    xid xid8 not null,
    number bigint not null,
    amount bigint not null,
    occurred_at timestamptz not null,
    name text collate "C" not null,
    user_id text collate "C" not null,
    primary key (account_kind, account_id, event)
);
create index reservation_ends_events on ducto.reservation_ends (xid);
