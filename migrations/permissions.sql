-- Who may do what: nobody but the owner reaches the tables, and the public functions are for the role `service_role`,
-- where there is one, and for roles that the owner grants them to by name. Safe to apply again and again.

revoke all on schema ducto from public;
revoke all on all tables in schema ducto from public;
revoke all on all sequences in schema ducto from public;

do $$
declare
    v_item record;
    v_role text;
begin
    for v_item in
        select c.oid::regclass as name, pg_get_userbyid(c.relowner) as owner, c.oid as id from pg_class as c
        join pg_namespace as n on n.oid = c.relnamespace
        where n.nspname = 'ducto' and c.relkind in ('r', 'p')
    loop
        execute format('alter table %s enable row level security', v_item.name);
        execute format('alter table %s force row level security', v_item.name);
        if not exists (select from pg_policy as p where p.polrelid = v_item.id and p.polname = 'owner_only') then
            execute format('create policy owner_only on %s to %I using (true) with check (true)', v_item.name,
                v_item.owner);
        end if;
    end loop;

    for v_item in
        select p.oid::regprocedure as name, p.prokind, n.nspname from pg_proc as p
        join pg_namespace as n on n.oid = p.pronamespace
        where n.nspname = 'ducto' or (n.nspname = 'public' and p.proname like 'ducto\_%')
    loop
        execute format('revoke all on routine %s from public', v_item.name);
        -- Roles of a hosted database may have been given every new function of `public` by default.
        for v_role in select r.rolname from pg_roles as r where r.rolname in ('anon', 'authenticated') loop
            execute format('revoke all on routine %s from %I', v_item.name, v_role);
        end loop;
        for v_role in select r.rolname from pg_roles as r where r.rolname = 'service_role' loop
            if v_item.nspname = 'public' then
                execute format('grant execute on routine %s to %I', v_item.name, v_role);
            else
                execute format('revoke all on routine %s from %I', v_item.name, v_role);
            end if;
        end loop;
    end loop;

    for v_role in select r.rolname from pg_roles as r where r.rolname in ('anon', 'authenticated', 'service_role') loop
        execute format('revoke all on schema ducto from %I', v_role);
        execute format('revoke all on all tables in schema ducto from %I', v_role);
    end loop;
end
$$;
