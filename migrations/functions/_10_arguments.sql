-- The form that arguments must have: the same rules, codes and messages as the client's own checks.
-- A `_..._fault` function returns the refusal, or null where there is nothing to refuse. They are plain SQL where they
-- are asked for every call, so that the planner writes them into the statement that asks; it does so only with functions
-- that are not declared steadier than what they call (jsonb_build_object and `text || bigint` are merely stable).

create or replace function ducto._refusal(p_code text, p_message text, p_details jsonb default null) returns jsonb
language sql immutable parallel safe as $$
    select pg_catalog.jsonb_build_object('error', p_code, 'message', p_message, 'details', p_details)
$$;

-- A text as the client's language would quote it.
create or replace function ducto._quoted(p_text text) returns text
language sql immutable parallel safe as $$
    select case
        when p_text is null then 'None'
        when pg_catalog.strpos(p_text, '''') > 0 and pg_catalog.strpos(p_text, '"') = 0
            then '"' || pg_catalog.replace(p_text, '\', '\\') || '"'
        else '''' || pg_catalog.replace(pg_catalog.replace(p_text, '\', '\\'), '''', '\''') || ''''
    end
$$;

-- A value for a message: short, and never the whole of what may be long.
create or replace function ducto._shown(p_value jsonb) returns text
language plpgsql immutable parallel safe as $$
declare
    v_text text := case coalesce(pg_catalog.jsonb_typeof(p_value), 'null')
        when 'null' then 'NoneType'
        when 'object' then 'dict'
        when 'array' then 'list'
        when 'boolean' then pg_catalog.initcap(p_value::text)
        when 'string' then ducto._quoted(p_value #>> '{}')
        else p_value::text
    end;
begin
    return case when pg_catalog.length(v_text) > 40 then pg_catalog.left(v_text, 37) || '...' else v_text end;
end
$$;

create or replace function ducto._amount_refusal(p_value jsonb, p_name text, p_minimum bigint) returns jsonb
language sql immutable parallel safe as $$
    select ducto._refusal('invalid_amount', p_name || ' must be a whole number (int) of credits from ' || p_minimum
        || ' to 2^53-1, not ' || ducto._shown(p_value) || '.')
$$;

create or replace function ducto._whole_refusal(p_value jsonb, p_name text, p_minimum bigint, p_maximum bigint)
returns jsonb
language sql immutable parallel safe as $$
    select ducto._refusal('invalid_argument', p_name || ' must be a whole number from ' || p_minimum || ' to '
        || p_maximum || ', not ' || ducto._shown(p_value) || '.')
$$;

-- Whether the value is a whole number, written as one.
create or replace function ducto._is_whole(p_value jsonb, p_minimum bigint, p_maximum bigint) returns boolean
language sql immutable parallel safe as $$
    select case when pg_catalog.jsonb_typeof(p_value) = 'number'
        then p_value::numeric between p_minimum and p_maximum and pg_catalog.scale(p_value::numeric) = 0
        else false end
$$;

create or replace function ducto._amount_fault(p_value jsonb, p_name text default 'amount', p_minimum bigint default 0)
returns jsonb
language sql immutable parallel safe as $$
    select case when ducto._is_whole(p_value, p_minimum, 9007199254740991) then null
        else ducto._amount_refusal(p_value, p_name, p_minimum) end
$$;

create or replace function ducto._whole_fault(p_value jsonb, p_name text, p_minimum bigint, p_maximum bigint)
returns jsonb
language sql immutable parallel safe as $$
    select case when ducto._is_whole(p_value, p_minimum, p_maximum) then null
        else ducto._whole_refusal(p_value, p_name, p_minimum, p_maximum) end
$$;

-- What is wrong with a text that is not plain printable ASCII: nothing, often.
create or replace function ducto._odd_text_fault(p_value jsonb, p_name text, p_max_bytes integer) returns jsonb
language plpgsql immutable parallel safe as $$
declare
    v_text text := p_value #>> '{}';
    c_padding constant text := U&' \00a0\1680\2000\2001\2002\2003\2004\2005\2006\2007\2008\2009\200a\2028\2029\202f\205f\3000';
begin
    if p_value is null or pg_catalog.jsonb_typeof(p_value) <> 'string' then
        return ducto._refusal('invalid_argument', p_name || ' must be a str, not '
            || case coalesce(pg_catalog.jsonb_typeof(p_value), 'null')
                when 'null' then 'NoneType' when 'object' then 'dict' when 'array' then 'list'
                when 'boolean' then 'bool'
                else case when pg_catalog.scale(p_value::numeric) = 0 then 'int' else 'float' end
            end || '.');
    end if;
    if v_text = '' then
        return ducto._refusal('invalid_argument', p_name || ' must not be empty.');
    end if;
    if pg_catalog.octet_length(pg_catalog.convert_to(v_text, 'UTF8')) > p_max_bytes then
        return ducto._refusal('invalid_argument', p_name || ' must be at most ' || p_max_bytes
            || ' bytes of UTF-8, not ' || pg_catalog.octet_length(pg_catalog.convert_to(v_text, 'UTF8')) || '.');
    end if;
    if v_text collate "C" ~ U&'[\0001-\001f\007f-\009f]' then
        return ducto._refusal('invalid_argument', p_name || ' must not contain control characters.');
    end if;
    if pg_catalog.strpos(c_padding, pg_catalog.left(v_text, 1)) > 0
        or pg_catalog.strpos(c_padding, pg_catalog.right(v_text, 1)) > 0 then
        return ducto._refusal('invalid_argument', p_name || ' must not begin or end with a space.');
    end if;
    return null;
end
$$;

create or replace function ducto._text_fault(p_value jsonb, p_name text, p_max_bytes integer default 200) returns jsonb
language sql immutable parallel safe as $$
    select case when pg_catalog.jsonb_typeof(p_value) = 'string'
            and (p_value #>> '{}') collate "C" ~ '^[!-~]([ -~]*[!-~])?$'
            and pg_catalog.octet_length(p_value #>> '{}') <= p_max_bytes
        then null
        else ducto._odd_text_fault(p_value, p_name, p_max_bytes) end
$$;

-- Absent and null are the same.
create or replace function ducto._optional_text_fault(p_value jsonb, p_name text, p_max_bytes integer default 200)
returns jsonb
language sql immutable parallel safe as $$
    select case when p_value is null or p_value = 'null' then null
        else ducto._text_fault(p_value, p_name, p_max_bytes) end
$$;

create or replace function ducto._key_fault(p_value jsonb) returns jsonb
language sql immutable parallel safe as $$
    select ducto._optional_text_fault(p_value, 'idempotency_key', 255)
$$;

create or replace function ducto._choice_fault(p_value jsonb, p_name text, p_choices text[]) returns jsonb
language sql stable parallel safe as $$
    select case when pg_catalog.jsonb_typeof(p_value) = 'string' and p_value #>> '{}' = any (p_choices) then null
        else ducto._refusal('invalid_argument', p_name || ' must be one of '
            || pg_catalog.array_to_string(p_choices, ', ') || ', not ' || ducto._shown(p_value) || '.') end
$$;

create or replace function ducto._size_fault(p_text text) returns jsonb
language sql immutable parallel safe as $$
    select case when pg_catalog.octet_length(p_text) > 16384 then ducto._refusal('invalid_argument',
        'metadata must be at most 16384 bytes of JSON, not ' || pg_catalog.octet_length(p_text) || '.') end
$$;

create or replace function ducto._metadata_fault(p_value jsonb) returns jsonb
language sql stable parallel safe as $$
    select case coalesce(pg_catalog.jsonb_typeof(p_value), 'null')
        when 'null' then null
        -- So little cannot be too long as text, which is dearer to ask.
        when 'object' then case when pg_catalog.pg_column_size(p_value) > 2000 then ducto._size_fault(p_value::text) end
        else ducto._refusal('invalid_argument',
            'metadata must be a mapping or CreditMetadata, not ' || ducto._shown(p_value) || '.')
    end
$$;

create or replace function ducto._usage_fault(p_value jsonb) returns jsonb
language sql immutable parallel safe as $$
    select case when p_value is null or pg_catalog.jsonb_typeof(p_value) in ('null', 'object') then null
        else ducto._refusal('invalid_argument', 'usage must be a UsageMetrics, not ' || ducto._shown(p_value) || '.')
    end
$$;

-- A JSON null is a missing value.
create or replace function ducto._present(p_value jsonb) returns jsonb
language sql immutable parallel safe as $$
    select case when pg_catalog.jsonb_typeof(p_value) = 'null' then null else p_value end
$$;

create or replace function ducto._flag(p_value jsonb) returns boolean
language sql immutable parallel safe as $$
    select coalesce(p_value = 'true', false)
$$;

-- Whether there is nothing to refuse in the form of an item, seen at a glance: a quick look for the many, where the
-- `_..._fault` functions find the words for the few. What it lets pass has no fault; what it does not may have one.
-- `p_form` says so of the fields. Setting up an expression costs more than running it, and a path is a constant.
create or replace function ducto._looks_sound(p jsonb, p_form jsonpath) returns boolean
language sql immutable parallel safe as $$
    select coalesce(pg_catalog.jsonb_path_match(p, p_form, '{}', true), false)
        -- Texts are printable ASCII without padding.
        and not p @? '$.* ? (@.type() == "string" && !(@ like_regex "^[!-~]([ -~]*[!-~])?$"))'
        -- No number is written with a fraction.
        and (p - '{metadata,usage}'::text[])::text !~ ': -?[0-9]+[.]'
        -- Neither is a text longer than 200 bytes, nor metadata than they may be.
        and pg_catalog.pg_column_size(p) <= 2000
        and (pg_catalog.pg_column_size(p) <= 200
            or (p - '{metadata,usage}'::text[])::text !~ '[^"]{201}')
$$;
