"""`--model metashot` for lm-evaluation-harness: importing this package registers the model.

    python -m metashot.harness run --model metashot --model_args pretrained=... --tasks ...

is the harness's own command line with one more model. From Python: `import metashot.harness`, then
`lm_eval.simple_evaluate(model="metashot", ...)`.
"""

from metashot.harness.language_model import MetashotLM

__all__ = ["MetashotLM"]
