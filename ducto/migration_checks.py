"""What must hold of the catalogue after a migration, else it is rolled back."""

from __future__ import annotations

from typing import Any

__all__ = ["OURS", "catalogue_faults"]

#: Our functions: the private ones in schema ducto, and the public ones by their prefix.
OURS = "(n.nspname = 'ducto' OR (n.nspname = 'public' AND p.proname LIKE 'ducto\\_%'))"

#: The rule on the left must have no rows on the right.
_FAULTS: tuple[tuple[str, str], ...] = (
    (
        "two functions have the same name; PostgREST cannot tell overloads apart",
        f"""SELECT n.nspname || '.' || p.proname FROM pg_catalog.pg_proc p
            JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
            WHERE {OURS} GROUP BY n.nspname, p.proname HAVING pg_catalog.count(*) > 1""",
    ),
    (
        "everybody (or a role of PostgREST's public users) may execute the function",
        f"""SELECT DISTINCT n.nspname || '.' || p.proname FROM pg_catalog.pg_proc p
            JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
            CROSS JOIN LATERAL pg_catalog.aclexplode(
                coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) AS acl
            LEFT JOIN pg_catalog.pg_roles r ON r.oid = acl.grantee
            WHERE {OURS} AND (acl.grantee = 0 OR r.rolname IN ('anon', 'authenticated'))""",
    ),
    (
        "the function runs with its owner's rights but does not set search_path to nothing",
        f"""SELECT n.nspname || '.' || p.proname FROM pg_catalog.pg_proc p
            JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
            WHERE {OURS} AND p.prosecdef AND NOT EXISTS (
                SELECT FROM pg_catalog.unnest(p.proconfig) AS setting
                WHERE setting IN ('search_path=', 'search_path=""'))""",
    ),
    (
        "row level security is not both enabled and forced on the table",
        """SELECT 'ducto.' || c.relname FROM pg_catalog.pg_class c
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = 'ducto' AND c.relkind IN ('r', 'p')
            AND NOT (c.relrowsecurity AND c.relforcerowsecurity)""",
    ),
    (
        "somebody besides the owner has rights on the table",
        """SELECT DISTINCT 'ducto.' || c.relname FROM pg_catalog.pg_class c
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) AS acl
            WHERE n.nspname = 'ducto' AND acl.grantee <> c.relowner""",
    ),
)


async def catalogue_faults(connection: Any) -> list[str]:
    """A line for each rule that does not hold, with the names that break it."""
    faults = []
    for rule, query in _FAULTS:
        names = sorted(row[0] for row in await connection.fetch(query))
        if names:
            faults.append(f"{rule}: {', '.join(names)}")
    return faults
