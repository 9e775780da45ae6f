-- Published versions of the pricing config. Not local to an account: one copy of them serves every shard.

create table ducto.pricing_configs (
    number bigint primary key check (number > 0),
    label text collate "C",
    config jsonb not null,
    key text collate "C" unique,
    created_at timestamptz not null
);

-- One row at most: which version is active, and its default plan, which the hot path looks up.
create table ducto.active_pricing (
    singleton boolean primary key default true check (singleton),
    number bigint not null references ducto.pricing_configs (number),
    default_plan text collate "C"
);
