"""Which parameters a word or a pattern names."""

from __future__ import annotations

import pytest
from torch import nn

from gradstore.errors import ParametersError
from gradstore.task import require_distinct_sets, tracked_parameters
from gradstore.testing.toys import ReadoutTask


class TwoHalves(ReadoutTask):
    encoder = "0.*"
    decoder = "1.weight,2.*"

    def __init__(self) -> None:
        super().__init__(lambda: nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3), nn.Linear(3, 1)))


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("encoder", ["0.weight", "0.bias"]),
        ("decoder", ["1.weight", "2.weight", "2.bias"]),
        ("*.bias, 1.*", ["0.bias", "1.weight", "1.bias", "2.bias"]),
        ("all", ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"]),
    ],
)
def test_a_pattern_names_parameters_in_the_model_s_order(pattern: str, names: list[str]) -> None:
    task = TwoHalves()
    assert list(tracked_parameters(task, task.build(), pattern)) == names


def test_a_pattern_that_names_nothing_says_what_there_is() -> None:
    task = TwoHalves()
    message = r"--parameters 'head\.\*' names none of the model's 6 parameters.*0\.weight.*Use all, encoder, decoder"
    with pytest.raises(ParametersError, match=message):
        require_distinct_sets(task, task.build(), ["encoder", "head.*"])


def test_sets_of_the_same_parameters_are_refused_whatever_their_names() -> None:
    task = TwoHalves()
    require_distinct_sets(task, task.build(), ["encoder", "decoder", "all", "*.bias"])
    with pytest.raises(ParametersError, match=r"'decoder' and --parameters '2\.\*,1\.weight' name the same 3"):
        require_distinct_sets(task, task.build(), ["decoder", "encoder", "2.*,1.weight"])
