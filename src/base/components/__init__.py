"""From config nodes to objects: what a node may name, what its keys must be, and the choices known by name."""
