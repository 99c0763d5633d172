"""Board and ledger against small models of themselves, and the tables of the pure rules."""
