"""The tables of a report, as cells of text."""
