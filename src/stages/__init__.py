"""The only readers of config nodes: they make components, call the libraries and write what came out."""
