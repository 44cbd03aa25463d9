"""The choices of the command line; `hydra.initialize_config_module("metashot.conf")` composes them in a notebook."""

from metashot.stages.command import register_resolvers

register_resolvers()
