"""scripts/bench: PostgreSQL itself, PgBouncer, PgDog and nodes of ours under the same loads, in turns."""
