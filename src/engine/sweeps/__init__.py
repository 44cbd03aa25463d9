"""Many runs: the ledger of a sweep, searches, early stopping."""
