-- Statistics that the planner and the audit want: extended statistics for the columns that go together.

create statistics ducto.ledger_accounts (ndistinct) on account_kind, account_id from ducto.ledger;
create statistics ducto.reservation_accounts (ndistinct) on account_kind, account_id from ducto.reservations;
