"""The files of a report: text, LaTeX, the harness's format."""
