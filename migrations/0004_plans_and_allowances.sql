-- Plans, as last defined by a published config, and the monthly allowance that accounts have used of theirs.

create table ducto.plans (
    id text collate "C" primary key,
    free_allowance bigint not null check (free_allowance between 0 and 9007199254740991),
    max_concurrent bigint,
    features text[] not null,
    definition jsonb not null
);

-- `month` counts calendar months in UTC: year * 12 + month - 1.
create table ducto.allowance_use (
    account_kind text collate "C" not null,
    account_id text collate "C" not null,
    month integer not null,
    used bigint not null default 0 check (used between -9007199254740991 and 9007199254740991),
    held bigint not null default 0 check (held between -9007199254740991 and 9007199254740991),
    primary key (account_kind, account_id, month)
);
