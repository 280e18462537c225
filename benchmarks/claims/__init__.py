"""Claims of the papers, measured: the studies behind rows of the ledger, and what the rows say of their numbers."""
