-- Accounts and the ledger. Users and teams are rows of one table: kind 'u' or 't', then the id. Every table but the
-- pricing has these two columns at the head of its primary key, so that all of an account lives in one place.
-- Amounts are whole credits within 2^53-1, which JSON clients keep exact. Texts compare byte by byte.

create schema if not exists ducto;

-- What the hot path needs to know of an account is on its row, so that a reserve or a deduct looks nowhere else:
-- `granted` is the sum of what its grants still have (0: no grant matters), `has_caps` whether any cap exists, and
-- `next_due_at` the earliest moment at which a hold or a grant may end by itself. No index covers a column that
-- changes, and pages are half empty, so that an update stays on its page.
create table ducto.accounts (
    base bigint not null default 0,
    base_held bigint not null default 0,
    held bigint not null default 0,
    granted bigint not null default 0,
    lifetime_purchased bigint not null default 0,
    sequence bigint not null default 0,
    holds_made bigint not null default 0,
    grants_made bigint not null default 0,
    events bigint not null default 0,
    active bigint not null default 0,
    last_op_at timestamptz not null,
    next_due_at timestamptz not null default 'infinity',
    has_caps boolean not null default false,
    deleted boolean not null default false,
    account_kind text collate "C" not null check (account_kind in ('t', 'u')),
    account_id text collate "C" not null,
    tag text collate "C" not null,
    plan_id text collate "C",
    primary key (account_kind, account_id),
    constraint amounts_in_range check (
        base + granted between -9007199254740991 and 9007199254740991
        and base between -9007199254740991 and 9007199254740991
        and base_held between -9007199254740991 and 9007199254740991
        and held between -9007199254740991 and 9007199254740991
        and granted between -9007199254740991 and 9007199254740991
        and lifetime_purchased between 0 and 9007199254740991
    )
) with (fillfactor = 50);

comment on column ducto.accounts.tag is 'How the account is spelled within the ids of its reservations and rows.';
comment on column ducto.accounts.events is 'How many events the account has had: rows, reservations and their ends.';
comment on column ducto.accounts.last_op_at is 'The time of an account never goes back, whatever the clock does.';

-- One row for each movement, numbered 1, 2, 3 ... within its account. `base_delta` and `grant_deltas`
-- ([[grant, delta], ...]) say which credits moved. `xid` is the transaction that wrote the row: all rows of finished
-- transactions have a smaller one than those to come, which gives readers of events an order that misses nobody.
create table ducto.ledger (
    sequence bigint not null,
    event bigint not null,
    xid xid8 not null,
    amount bigint not null,
    base_delta bigint not null default 0,
    balance_after bigint not null,
    available_after bigint,
    actual bigint not null default 0,
    charged bigint not null default 0,
    unbilled bigint not null default 0,
    allowance bigint not null default 0,
    refunded bigint not null default 0,
    reservation bigint,
    reserved bigint,
    refunds bigint,
    min_balance bigint not null default 0,
    booked_at timestamptz not null,
    created_at timestamptz not null,
    expires_at timestamptz,
    estimated boolean not null default false,
    late boolean not null default false,
    forced boolean not null default false,
    suspect boolean not null default false,
    model_given boolean not null default false,
    account_kind text collate "C" not null,
    account_id text collate "C" not null,
    type text collate "C" not null check (type in (
        'purchase', 'grant', 'bonus', 'adjustment', 'deduction', 'charge', 'allowance', 'refund', 'expiry',
        'debt_repayment', 'transfer_out', 'transfer_in')),
    operation text collate "C" not null,
    user_id text collate "C" not null,
    counterparty text collate "C",
    transfer_id text collate "C",
    operation_type text collate "C",
    model text collate "C",
    pricing_version text collate "C",
    plan_id text collate "C",
    key text collate "C",
    grant_deltas jsonb,
    usage jsonb,
    metadata jsonb,
    reply jsonb,
    primary key (account_kind, account_id, sequence),
    constraint amounts_in_range check (
        amount between -9007199254740991 and 9007199254740991
        and base_delta between -9007199254740991 and 9007199254740991
        and balance_after between -9007199254740991 and 9007199254740991
        and available_after between -18014398509481982 and 18014398509481982
        and actual between 0 and 9007199254740991
        and charged between 0 and 9007199254740991
        and unbilled between 0 and 9007199254740991
        and allowance between -9007199254740991 and 9007199254740991
        and refunded between 0 and 9007199254740991
    )
);

comment on column ducto.ledger.operation is 'The verb that wrote the row: keys are unique within a verb.';
comment on column ducto.ledger.user_id is 'Who acted: the member, where a team paid; empty for a team''s own rows.';
comment on column ducto.ledger.transfer_id is 'In the receiver''s row of a transfer, the id of the sender''s.';
comment on column ducto.ledger.refunds is 'In a refund''s row, the number of the row that it refunds.';
comment on column ducto.ledger.model_given is 'Whether the caller named the model, or the reservation''s was taken.';
comment on column ducto.ledger.reply is 'What the first answer had that the columns do not tell, for replays.';

-- "POSIX" orders as "C" does and is another collation to the planner: an index in it serves those statements alone that
-- name it, and they can use no other. So a key is never looked for through all rows of a busy account, whatever the
-- planner knows of the table.
create unique index ledger_keys on ducto.ledger (account_kind collate "POSIX", account_id collate "POSIX", user_id, operation, key)
    where key is not null;
create index ledger_events on ducto.ledger (xid);
-- Rows are written in the order of time, so that a block range index is as good as a tree and costs the writer nothing.
create index ledger_times on ducto.ledger using brin (created_at) with (pages_per_range = 32, autosummarize = on);

create function ducto._refuse_change() returns trigger
language plpgsql set search_path = '' as $$
begin
    raise exception 'The ledger is append-only: % of % is refused. Correct a movement by another movement.',
        tg_op, tg_table_name using errcode = 'restrict_violation';
end
$$;

create trigger ledger_is_append_only before update or delete or truncate on ducto.ledger
    for each statement execute function ducto._refuse_change();
alter table ducto.ledger enable always trigger ledger_is_append_only;
