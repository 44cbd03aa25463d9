"""The harness's command line, with `--model metashot` known."""

from lm_eval.__main__ import cli_evaluate

from metashot.harness import MetashotLM

assert MetashotLM  # importing it registered the model
cli_evaluate()
