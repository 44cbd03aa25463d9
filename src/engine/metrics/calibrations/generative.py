"""Generative calibration (Jiang et al. 2023): the label marginal is that over inputs which the model itself writes.

After the demonstrations the model's own next text is an input. So q_y = mean of p(y | demonstrations, x) over such x
estimates the model's p(y | demonstrations), by Monte Carlo, and no data are needed.
"""

from __future__ import annotations

from metashot.engine.metrics.rules import Calibration, InputsFrom, contextual, register

RULE = register(
    Calibration(
        "generative",
        "divided by the mean probability after inputs that the model writes itself (Jiang et al. 2023)",
        contextual,
        fewest=1,
        most=None,
        row_from=1,
        inputs=InputsFrom("written", None),
    )
)
