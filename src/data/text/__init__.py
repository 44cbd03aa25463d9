"""Plain text: corpora and their sentences."""
