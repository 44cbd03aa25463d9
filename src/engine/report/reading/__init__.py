"""Folders of results as tables: what a report and a comparison read."""
