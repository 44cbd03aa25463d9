"""The HTML page of a report: its plots and its view of examples."""
