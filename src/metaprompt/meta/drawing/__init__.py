"""Meta-tasks out of clusters: domains, records of sentences, formats, tasks as ids."""
