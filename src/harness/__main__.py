"""The harness's command line, with `--model metashot` known."""

import sys

from lm_eval.__main__ import cli_evaluate

from metashot.base.errors import ExitStatus, MetashotError
from metashot.harness import MetashotLM

assert MetashotLM  # importing it registered the model
try:
    cli_evaluate()
except MetashotError as error:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(ExitStatus.MISTAKE) from None
