"""`--model metashot` for lm-evaluation-harness: importing this package registers the model.

    python -m metashot.harness run --model metashot --model_args pretrained=... --tasks ...

is the harness's own command line with one more model. From Python: `import metashot.harness`, then
`lm_eval.simple_evaluate(model="metashot", ...)`.
"""

import sys

from metashot.base.errors import ConfigError
from metashot.base.extras import import_extra

try:
    import_extra("lm_eval.models.huggingface", "metashot.harness", "HFLM")
    import_extra("lm_eval.models.utils", "metashot.harness", "normalize_gen_kwargs")  # since 0.4.9
except ConfigError as error:
    if sys.argv[:1] != ["-m"]:
        raise ImportError(str(error), name="lm_eval") from error
    print(f"error: {error}", file=sys.stderr)  # `python -m metashot.harness`, before its first line
    raise SystemExit(2) from None
from metashot.harness.language_model import MetashotLM

__all__ = ["MetashotLM"]
