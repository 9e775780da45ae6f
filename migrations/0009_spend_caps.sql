-- Spend caps with the counter of their current window. `model` is empty for a cap on all models; `inherited` is what
-- the window had spent and held when the cap was set, which may be above its limit already.

create table ducto.spend_caps (
    account_kind text collate "C" not null default 'u' check (account_kind = 'u'),
    account_id text collate "C" not null,
    cap_type text collate "C" not null check (cap_type in ('hourly', 'daily', 'monthly')),
    model text collate "C" not null,
    cap_limit bigint not null check (cap_limit between 0 and 9007199254740991),
    action text collate "C" not null check (action in ('deny', 'warn', 'notify')),
    window_start timestamptz not null,
    window_end timestamptz not null,
    spent bigint not null default 0 check (spent between -9007199254740991 and 9007199254740991),
    held bigint not null default 0 check (held between -9007199254740991 and 9007199254740991),
    inherited bigint not null default 0,
    primary key (account_kind, account_id, cap_type, model)
) with (fillfactor = 50);
