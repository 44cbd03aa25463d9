"""Where metrics go besides the run's own files."""
