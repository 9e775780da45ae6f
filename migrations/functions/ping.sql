-- Whether the functions are there, and of which version they are.

create or replace function public.ducto_ping() returns jsonb
language sql stable security definer set search_path = '' set jit = off as $$
    select '{"schema_version": 13}'::jsonb
$$;
