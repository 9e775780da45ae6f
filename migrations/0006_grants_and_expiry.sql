-- Grants: credits that expire. `held` of `remaining` belongs to open reservations.

create table ducto.grants (
    account_kind text collate "C" not null,
    account_id text collate "C" not null,
    number bigint not null,
    amount bigint not null check (amount between 0 and 9007199254740991),
    remaining bigint not null check (remaining between -9007199254740991 and 9007199254740991),
    held bigint not null check (held between -9007199254740991 and 9007199254740991),
    expires_at timestamptz not null,
    primary key (account_kind, account_id, number)
);

create index grants_live on ducto.grants (account_kind, account_id, expires_at, number) where remaining > 0;
-- For the sweep, which asks all accounts at once.
create index grants_by_expiry on ducto.grants (expires_at) where remaining > 0;
