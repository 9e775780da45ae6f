-- Publish: versions of the pricing config, of which one is active, and the plans that they define. Whether a config
-- means something is checked by the client, which has the pricing engine; here it must only be an object.

-- A plan that this config does not have keeps its last definition, for the users who are on it.
create or replace function ducto._make_active(p_number bigint, p_config jsonb) returns void
language plpgsql as $$
begin
    insert into ducto.active_pricing (number, default_plan) values (p_number, p_config ->> 'default_plan')
    on conflict (singleton) do update set number = excluded.number, default_plan = excluded.default_plan;
    insert into ducto.plans (id, free_allowance, max_concurrent, features, definition)
    select x.key, coalesce((x.value ->> 'free_allowance')::bigint, 0), (x.value ->> 'max_concurrent')::bigint,
        array(select f from pg_catalog.jsonb_array_elements_text(coalesce(ducto._present(x.value -> 'features'), '[]')) as f),
        x.value || pg_catalog.jsonb_build_object('id', x.key, 'name', coalesce(nullif(x.value ->> 'name', ''), x.key))
    from pg_catalog.jsonb_each(coalesce(ducto._present(p_config -> 'plans'), '{}')) as x
    on conflict (id) do update set free_allowance = excluded.free_allowance, max_concurrent = excluded.max_concurrent,
        features = excluded.features, definition = excluded.definition;
    perform pg_catalog.pg_notify('ducto_pricing', p_number::text);
end
$$;

create or replace function public.ducto_publish_pricing(
    p_config jsonb, p_label text default null, p_expected_version text default null,
    p_idempotency_key text default null) returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off as $$
declare
    v_fault jsonb := coalesce(
        ducto._optional_text_fault(pg_catalog.to_jsonb(p_label), 'label'),
        ducto._key_fault(pg_catalog.to_jsonb(p_idempotency_key)),
        case when pg_catalog.jsonb_typeof(p_config) is distinct from 'object' then
            ducto._refusal('invalid_argument', 'config must be a JSON object.') end);
    v_earlier ducto.pricing_configs;
    v_active text;
    v_number bigint;
begin
    if v_fault is not null then
        return v_fault;
    end if;
    -- One publish at a time; readers go on.
    lock table ducto.pricing_configs in share row exclusive mode;
    select c.* into v_earlier from ducto.pricing_configs as c where c.key = p_idempotency_key;
    if found then
        return coalesce(
            ducto._mismatch(p_idempotency_key, array['config', 'label'],
                array[v_earlier.config <> p_config, v_earlier.label is distinct from p_label]),
            pg_catalog.jsonb_build_object('value', v_earlier.number::text));
    end if;
    v_active := coalesce((select c.number from ducto.active_pricing as c where c.singleton), 0)::text;
    if p_expected_version <> v_active then
        return ducto._refusal('version_conflict', 'The active pricing version is ' || v_active || ', not '
            || p_expected_version || ': somebody published meanwhile. Look at the active version and publish again.');
    end if;
    select coalesce(pg_catalog.max(c.number), 0) + 1 into v_number from ducto.pricing_configs as c;
    insert into ducto.pricing_configs (number, label, config, key, created_at)
    values (v_number, p_label, p_config, p_idempotency_key, ducto._clock());
    perform ducto._make_active(v_number, p_config);
    return pg_catalog.jsonb_build_object('value', v_number::text);
end
$$;

create or replace function public.ducto_activate_pricing(p_version text) returns jsonb
language plpgsql volatile security definer set search_path = '' set jit = off as $$
declare
    v_found ducto.pricing_configs;
begin
    lock table ducto.pricing_configs in share row exclusive mode;
    select c.* into v_found from ducto.pricing_configs as c where c.number::text = p_version;
    if not found then
        return ducto._refusal('pricing_not_found', 'There is no pricing version ' || ducto._quoted(p_version) || '.');
    end if;
    perform ducto._make_active(v_found.number, v_found.config);
    return pg_catalog.jsonb_build_object('value', v_found.number::text);
end
$$;

create or replace function ducto._version(c ducto.pricing_configs) returns jsonb
language sql stable as $$
    select pg_catalog.jsonb_build_object('id', c.number::text, 'version', c.number, 'label', c.label,
        'created_at', c.created_at,
        'active', c.number is not distinct from (select x.number from ducto.active_pricing as x where x.singleton))
$$;

-- The active version, or the one that is named; {"value": null} where there is none.
create or replace function public.ducto_get_pricing(p_version text default null) returns jsonb
language sql stable security definer set search_path = '' set jit = off as $$
    select pg_catalog.jsonb_build_object('value', (
        select ducto._version(c) || pg_catalog.jsonb_build_object('config', c.config) from ducto.pricing_configs as c
        where case when p_version is null
            then c.number = (select x.number from ducto.active_pricing as x where x.singleton)
            else c.number::text = p_version end))
$$;

-- The active version without its config, which whoever has it already need not be sent again; configs are long, and
-- every process asks several times a second.
create or replace function public.ducto_active_version() returns jsonb
language sql stable security definer set search_path = '' set jit = off as $$
    select pg_catalog.jsonb_build_object('value', (
        select ducto._version(c) from ducto.pricing_configs as c
        where c.number = (select x.number from ducto.active_pricing as x where x.singleton)))
$$;

create or replace function public.ducto_pricing_history() returns jsonb
language sql stable security definer set search_path = '' set jit = off as $$
    select pg_catalog.jsonb_build_object('rows',
        coalesce(pg_catalog.jsonb_agg(ducto._version(c) order by c.number desc), '[]'))
    from ducto.pricing_configs as c
$$;
