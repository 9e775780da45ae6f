-- Ids that the store mints: `rsv_` or `txn_`, the tag of the account (its kind, and its id in base64url), and the number
-- within the account. Opaque to callers; they name the account, so that it can be locked first. They grant no right.

create or replace function ducto._tag(p_kind text, p_id text) returns text
language sql immutable parallel safe as $$
    select p_kind || pg_catalog.translate(pg_catalog.encode(pg_catalog.convert_to(p_id, 'UTF8'), 'base64'), E'+/=\n', '-_')
$$;

create or replace function ducto._reservation_id(p_tag text, p_number bigint) returns text
language sql immutable parallel safe as $$
    select 'rsv_' || p_tag || '.' || p_number::text
$$;

create or replace function ducto._transaction_id(p_tag text, p_number bigint) returns text
language sql immutable parallel safe as $$
    select 'txn_' || p_tag || '.' || p_number::text
$$;

-- Kind, account and number of a minted id; nulls for anything that is not spelled exactly as it was minted.
create or replace function ducto._minted(p_id text, p_prefix text, out kind text, out id text, out number bigint)
language plpgsql immutable strict as $$
declare
    v_part text[] := pg_catalog.regexp_match(p_id, '^' || p_prefix || '([ut])([A-Za-z0-9_-]+)\.([1-9][0-9]{0,15})$');
    v_encoded text := pg_catalog.translate(v_part[2], '-_', '+/');
begin
    if v_part is null then
        return;
    end if;
    begin
        id := pg_catalog.convert_from(pg_catalog.decode(
            v_encoded || pg_catalog.repeat('=', (4 - pg_catalog.length(v_encoded) % 4) % 4), 'base64'), 'UTF8');
    exception when others then
        -- Not base64, or not text: never minted.
        return;
    end;
    if ducto._tag(v_part[1], id) <> v_part[1] || v_part[2] then
        id := null;
        return;
    end if;
    kind := v_part[1];
    number := v_part[3]::bigint;
end
$$;

-- The account of a reservation, told by the id alone; nulls where it cannot be this user's.
-- The common case, a user's own, is told without decoding.
create or replace function ducto._holder(p_user_id text, p_reservation_id text, out kind text, out id text, out number bigint)
language plpgsql immutable as $$
declare
    v_prefix text := 'rsv_' || ducto._tag('u', p_user_id) || '.';
    v_rest text;
begin
    if pg_catalog.starts_with(p_reservation_id, v_prefix) then
        v_rest := pg_catalog.substr(p_reservation_id, pg_catalog.length(v_prefix) + 1);
        if v_rest ~ '^[1-9][0-9]{0,15}$' then
            kind := 'u';
            id := p_user_id;
            number := v_rest::bigint;
        end if;
    elsif pg_catalog.starts_with(p_reservation_id, 'rsv_t') then
        select m.kind, m.id, m.number into kind, id, number from ducto._minted(p_reservation_id, 'rsv_') as m;
    end if;
end
$$;

-- The same for an unknown id and for somebody else's: the answer tells nobody which ids exist.
create or replace function ducto._no_reservation(p_reservation_id text) returns jsonb
language sql stable parallel safe as $$
    select ducto._refusal('reservation_not_found',
        'There is no reservation ' || ducto._quoted(pg_catalog.left(p_reservation_id, 80)) || ' of this user.')
$$;

create or replace function ducto._no_transaction(p_transaction_id text) returns jsonb
language sql stable parallel safe as $$
    select ducto._refusal('transaction_not_found',
        'There is no transaction ' || ducto._quoted(pg_catalog.left(p_transaction_id, 80)) || '.')
$$;

create or replace function ducto._no_team(p_team_id text) returns jsonb
language sql stable parallel safe as $$
    select ducto._refusal('team_not_found', 'There is no team ' || ducto._quoted(p_team_id) || '.')
$$;
