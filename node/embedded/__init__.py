"""Real PostgreSQL servers and whole flocks on this machine, for the demo and the tests."""
