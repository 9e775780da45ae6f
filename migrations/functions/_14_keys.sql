-- Idempotency keys: a call that was answered under a key is answered the same way again.

-- The refusal of a key that was used with other arguments; null where nothing differs.
create or replace function ducto._mismatch(p_key text, p_fields text[], p_differs boolean[]) returns jsonb
language plpgsql immutable as $$
declare
    v_differing text[];
begin
    select pg_catalog.array_agg(f.name order by f.ord) into v_differing
    from rows from (pg_catalog.unnest(p_fields), pg_catalog.unnest(p_differs)) with ordinality as f(name, differs, ord)
    where f.differs;
    if v_differing is null then
        return null;
    end if;
    return ducto._refusal('idempotency_mismatch',
        'The idempotency key ' || ducto._quoted(p_key) || ' was used before with another '
        || pg_catalog.array_to_string(v_differing, ' and ') || '; use a new key for a new call.',
        pg_catalog.jsonb_build_object('mismatch', v_differing));
end
$$;

-- The ledger row that was written under a key; the acting user is empty but for a team's member.
create or replace function ducto._keyed_row(a ducto.accounts, p_user_id text, p_operation text, p_key text)
returns ducto.ledger
language plpgsql stable as $$
declare
    r ducto.ledger;
begin
    select l.* into r from ducto.ledger as l
    where l.account_kind = a.account_kind collate "POSIX" and l.account_id = a.account_id collate "POSIX"
        and l.user_id = p_user_id
        and l.operation = p_operation and l.key = p_key;
    return r;
end
$$;

-- The first answer again, kept whole with the row of a verb that is not hot.
create or replace function ducto._replayed(p_row ducto.ledger) returns jsonb
language sql immutable as $$
    select p_row.reply || '{"replayed": true}'
$$;
