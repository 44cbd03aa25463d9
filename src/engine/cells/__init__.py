"""What a run leaves behind: records, stored cells, summaries."""
