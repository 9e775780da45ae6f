-- Sums of spend that are kept beside the ledger, for reports. They belong to nobody's account: with shards, each shard
-- keeps and reports its own, and the parts are added.

-- The view of spend tells the transaction too, so that rows beyond the sums are found.
create or replace view ducto.spends as
    select
        l.account_kind, l.account_id, l.user_id, l.model, l.created_at,
        case when l.type = 'refund' then 0 else l.charged end as spent,
        case when l.type = 'refund' then l.refunded else 0 end as refunded,
        case when l.type = 'refund' then 0 else 1 end as transactions,
        l.xid
    from ducto.ledger as l
    where l.type in ('deduction', 'charge', 'allowance', 'refund');

-- Sums of the rows up to `rolled_up.through`, and of no others: of each user's UTC days, and of each model's hours. A
-- user makes few calls in an hour, so that sums of a user's hours would be as many as the rows. No booking writes here:
-- they are made of finished rows, by one session at a time (functions/roll_up.sql).
create table ducto.user_days (
    day timestamptz not null,
    user_id text collate "C" not null,
    spent numeric not null,
    refunded numeric not null,
    transactions bigint not null,
    primary key (day, user_id)
) with (fillfactor = 70);

-- `model` is empty for spend without one.
create table ducto.model_hours (
    hour timestamptz not null,
    model text collate "C" not null,
    spent numeric not null,
    refunded numeric not null,
    transactions bigint not null,
    primary key (hour, model)
) with (fillfactor = 70);

-- One row: all rows of the ledger up to this transaction are in the sums. Transactions are numbered by the
-- server, so that the number says nothing on another one; `server` tells which one counted it.
create table ducto.rolled_up (
    singleton boolean primary key default true check (singleton),
    through xid8 not null default '0',
    server bigint
);

insert into ducto.rolled_up default values;
