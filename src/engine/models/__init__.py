"""Language models: loading, identity, conversion, and the tiny ones for tests."""
