-- Teams: a name, members with their caps, and what each member has spent and holds.

create table ducto.teams (
    account_kind text collate "C" not null default 't' check (account_kind = 't'),
    account_id text collate "C" not null,
    name text collate "C" not null,
    initial_balance bigint not null,
    key text collate "C",
    created_at timestamptz not null,
    primary key (account_kind, account_id)
);

-- One who left stays here: what was spent remains counted.
create table ducto.members (
    account_kind text collate "C" not null default 't' check (account_kind = 't'),
    account_id text collate "C" not null,
    user_id text collate "C" not null,
    role text collate "C" not null,
    spend_cap bigint,
    spend_cap_window text collate "C" not null check (spend_cap_window in ('lifetime', 'month')),
    joined_at timestamptz not null,
    is_member boolean not null default true,
    open_holds bigint not null default 0,
    spent bigint not null default 0 check (spent between -9007199254740991 and 9007199254740991),
    held bigint not null default 0 check (held between -9007199254740991 and 9007199254740991),
    primary key (account_kind, account_id, user_id)
) with (fillfactor = 50);

create table ducto.member_months (
    account_kind text collate "C" not null default 't' check (account_kind = 't'),
    account_id text collate "C" not null,
    user_id text collate "C" not null,
    month integer not null,
    spent bigint not null default 0 check (spent between -9007199254740991 and 9007199254740991),
    held bigint not null default 0 check (held between -9007199254740991 and 9007199254740991),
    primary key (account_kind, account_id, user_id, month)
) with (fillfactor = 50);
