"""Small sets of migration files, and the whole of a schema as text to compare."""

from __future__ import annotations

from typing import Any

import asyncpg  # type: ignore[import-untyped]

from ducto.migration_files import MigrationFile

__all__ = ["PERMISSIONS", "TABLE", "function", "schema_of", "table"]

#: As permissions.sql does it, for whatever is in the schema.
PERMISSIONS = MigrationFile(
    "permissions.sql",
    "permissions",
    """
DO $$
DECLARE
    v_name text;
BEGIN
    FOR v_name IN SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'ducto' LOOP
        EXECUTE 'ALTER TABLE ducto.' || v_name || ' ENABLE ROW LEVEL SECURITY';
        EXECUTE 'ALTER TABLE ducto.' || v_name || ' FORCE ROW LEVEL SECURITY';
        EXECUTE 'DROP POLICY IF EXISTS owner ON ducto.' || v_name;
        EXECUTE 'CREATE POLICY owner ON ducto.' || v_name || ' TO CURRENT_USER USING (true)';
    END LOOP;
    FOR v_name IN SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = 'public' AND p.proname LIKE 'ducto\\_%' OR n.nspname = 'ducto'
    LOOP
        EXECUTE 'REVOKE EXECUTE ON FUNCTION ' || v_name || ' FROM PUBLIC';
    END LOOP;
END
$$;
""",
)


def table(number: int, sql: str) -> MigrationFile:
    return MigrationFile(f"{number:04}_table.sql", "table", sql)


def function(name: str, answer: str, *, arguments: str = "", more: str = "") -> MigrationFile:
    sql = (
        f"CREATE OR REPLACE FUNCTION public.ducto_{name}({arguments}) RETURNS jsonb LANGUAGE sql SECURITY DEFINER "
        f"SET search_path = '' AS $$ SELECT '{answer}'::jsonb $$; {more}"
    )
    return MigrationFile(f"functions/{name}.sql", "function", sql)


TABLE = table(1, "CREATE TABLE ducto.one (id text PRIMARY KEY);")

_SCHEMA = (
    "SELECT 'column', table_name || '.' || column_name, data_type || ' ' || coalesce(column_default, '') || ' ' "
    "|| is_nullable FROM information_schema.columns WHERE table_schema = 'ducto'",
    "SELECT 'constraint', c.conrelid::regclass || '.' || c.conname, pg_get_constraintdef(c.oid) FROM pg_constraint c "
    "JOIN pg_namespace n ON n.oid = c.connamespace WHERE n.nspname = 'ducto'",
    "SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'ducto'",
    "SELECT 'trigger', t.tgrelid::regclass || '.' || t.tgname, pg_get_triggerdef(t.oid) FROM pg_trigger t "
    "JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = 'ducto' AND NOT t.tgisinternal",
    "SELECT 'policy', tablename || '.' || policyname, concat(permissive, cmd, qual, with_check) FROM pg_policies "
    "WHERE schemaname = 'ducto'",
    "SELECT 'security', c.relname, concat(c.relrowsecurity, c.relforcerowsecurity, c.relacl) FROM pg_class c "
    "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'ducto' AND c.relkind IN ('r', 'p')",
    "SELECT 'function', p.oid::regprocedure::text, concat(pg_get_functiondef(p.oid), p.proacl) FROM pg_proc p "
    "JOIN pg_namespace n ON n.oid = p.pronamespace "
    "WHERE n.nspname = 'ducto' OR n.nspname = 'public' AND p.proname LIKE 'ducto\\_%'",
    "SELECT 'file', name, checksum FROM ducto.migrations",
)


async def schema_of(url: str) -> list[tuple[Any, ...]]:
    """Tables, constraints, indexes, triggers, policies, rights, functions and the record of files, sorted."""
    connection = await asyncpg.connect(url)
    try:
        rows = [tuple(row) for query in _SCHEMA for row in await connection.fetch(query)]
    finally:
        await connection.close()
    return sorted(rows)
