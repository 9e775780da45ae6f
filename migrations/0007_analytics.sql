-- Spend reports read the ledger by time. They are not local to an account: with shards, each shard reports its part
-- and the parts are added. The view is what counts as spend, in one place.

create view ducto.spends as
    select
        l.account_kind, l.account_id, l.user_id, l.model, l.created_at,
        case when l.type = 'refund' then 0 else l.charged end as spent,
        case when l.type = 'refund' then l.refunded else 0 end as refunded,
        case when l.type = 'refund' then 0 else 1 end as transactions
    from ducto.ledger as l
    where l.type in ('deduction', 'charge', 'allowance', 'refund');
