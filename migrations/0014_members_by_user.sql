-- The teams of a user, for listing what the user has reserved. In "POSIX" for the same reason as the keys of the ledger:
-- no other statement may take it in the place of the primary key.
create index members_by_user on ducto.members (user_id collate "POSIX");
