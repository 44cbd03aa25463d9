"""`--model metashot` for lm-evaluation-harness: importing this package registers the model.

    python -m metashot.harness run --model metashot --model_args pretrained=... --tasks ...

is the harness's own command line with one more model. From Python: `import metashot.harness`, then
`lm_eval.simple_evaluate(model="metashot", ...)`.
"""

try:
    from metashot.harness.language_model import MetashotLM
except ImportError as error:
    if not (error.name or "").startswith("lm_eval"):
        raise
    raise ImportError(
        f"metashot.harness needs lm-evaluation-harness 0.4.9 or later ({error}): pip install 'metashot[harness]'",
        name=error.name,
    ) from error

__all__ = ["MetashotLM"]
