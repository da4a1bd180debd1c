"""Mann and Whitney's test: probabilities and p-values that counting gives."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mjx_hkl.analysis.ranks import compare

VALUES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 1e30]), min_size=2, max_size=4)


def wins(ahead, behind):
    return sum((a > b) + 0.5 * (a == b) for a in ahead for b in behind)


def counted(ahead, behind):
    """Both by hand: of all ways to deal the values, twice the share that is as far to the same side."""
    values, seen, dealt = [*ahead, *behind], wins(ahead, behind), []
    for deal in itertools.combinations(range(len(values)), len(ahead)):
        others = [x for i, x in enumerate(values) if i not in deal]
        dealt.append(wins([values[i] for i in deal], others))
    less, more = (sum(x <= seen for x in dealt), sum(x >= seen for x in dealt))
    return seen / (len(ahead) * len(behind)), min(1.0, 2 * min(less, more) / len(dealt))


def test_three_seeds_that_are_all_ahead():
    assert compare([0.7, 0.8, 0.9], [0.1, 0.2, 0.3]) == pytest.approx((1.0, 0.1))


def test_ties_do_not_make_three_seeds_surer_than_three_seeds_can_be():
    """SciPy's approximation says 0.064."""
    assert compare([0.7, 0.8, 0.9], [0.0, 0.0, 0.0]) == pytest.approx((1.0, 0.1))


@given(VALUES, VALUES)
def test_both_numbers_are_those_of_counting_also_with_ties(ahead, behind):
    assert compare(ahead, behind) == pytest.approx(counted(ahead, behind))
