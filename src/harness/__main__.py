"""The harness's command line, with `--model metashot` known."""

from lm_eval.__main__ import cli_evaluate

import metashot.harness  # noqa: F401  registers the model

cli_evaluate()
