"""stage=report: read output folders, compute tables and tests, write them in every format."""
