-- How much of a spend has been refunded. The rows themselves are in the ledger; this keeps a refund from adding up.

create table ducto.refund_tallies (
    account_kind text collate "C" not null,
    account_id text collate "C" not null,
    sequence bigint not null,
    money bigint not null default 0 check (money between 0 and 9007199254740991),
    allowance bigint not null default 0 check (allowance between 0 and 9007199254740991),
    primary key (account_kind, account_id, sequence)
);
