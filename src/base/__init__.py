"""The ground floor: errors, files, JSON and YAML, value kinds, identity, components. Imports nothing of ours."""
