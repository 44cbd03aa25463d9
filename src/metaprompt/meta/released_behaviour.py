"""The released code's oddities as switches: all off by default, all on with `supmer.as_released=true`.

Each changes numbers (docs/methods.md, oddities of the released code, gives the item). What the released code does without effect on any number
(running statistics that are stored but never used, shuffling of held-out tasks) has no switch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from metashot.base.errors import ConfigError, suggestion


@dataclass(frozen=True, slots=True)
class ReleasedBehaviour:
    """One field per oddity; True does as the released code.

    Attributes:
        last_task_only: only the last task of a step moves the prompt (item 1).
        constant_similarity: the gradient similarity is 0.5 after the very first task (item 2, torch below 2.0).
        learned_branch_relu: psi ends in a ReLU, has no residual and starts from N(0, 1) factors (item 3).
        bare_label_pieces: labels are bare vocabulary pieces; scsp's "no" is then <unk> for T5 (item 6).
        released_truncation: over-long nss contexts lose the question's ending (item 7).
        state_over_padding: contexts padded to the limit, and padding counted in the mean state (item 13).
        third_position: the closing sentinel is supervised in the support loss only (item 15).
        repeats: sentences and domains may repeat within a task, and support and query may share them (item 17).
        mix_padding: mixing takes the other batch's padding states (item 20).
        matrix_rescale_downstream: prompt tuning rescales over the whole matrix whatever training used (item 5).
        inverted_boolq: BoolQ's label words are swapped (item 7 of the downstream list).
        test_selection: the best step is chosen on the test set (item 8).
        always_regularize: plain prompt tuning also passes a random psi (item 10).
    """

    last_task_only: bool
    constant_similarity: bool
    learned_branch_relu: bool
    bare_label_pieces: bool
    released_truncation: bool
    state_over_padding: bool
    third_position: bool
    repeats: bool
    mix_padding: bool
    matrix_rescale_downstream: bool
    inverted_boolq: bool
    test_selection: bool
    always_regularize: bool


def released_behaviour(as_released: bool, switches: Mapping[str, bool | None]) -> ReleasedBehaviour:
    """Resolve `supmer.as_released` and `supmer.switches`; a switch that is null follows `as_released`.

    Raises:
        ConfigError: an unknown switch.
    """
    names = [field.name for field in fields(ReleasedBehaviour)]
    for name in switches:
        if name not in names:
            raise ConfigError(f"supmer.switches.{name}", "no such switch", suggestion(name, names))
    chosen = {name: switches.get(name) for name in names}
    return ReleasedBehaviour(
        **{name: as_released if value is None else bool(value) for name, value in chosen.items()}
    )
