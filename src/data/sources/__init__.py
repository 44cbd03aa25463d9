"""Where source rows come from: table files, downloads, archives and the hub."""
