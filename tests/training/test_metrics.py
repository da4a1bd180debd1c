"""What a log interval tells, from sums that are known."""

from mjx_hkl.training.metrics import means

SUMS = {
    "episodes": 10.0,
    "episode_return": 50.0,
    "episode_length": 20.0,
    "success": 3.0,
    "faults": 0.0,
    "updates": 2.0,
    "episodes/a": 4.0,
    "episodes/b": 6.0,
    "episode_return/a": 20.0,
    "episode_return/b": 30.0,
}


def test_success_is_of_the_episodes_where_something_can_succeed():
    """Of 10 episodes 4 can succeed, and 3 do."""
    found = means({**SUMS, "success/a": 3.0})
    assert found["success_rate"] == found["success_rate/a"] == 0.75
    assert "success_rate/b" not in found
    assert (found["episodes/a"], found["episodes/b"]) == (4, 6)
    assert (found["episode_return/a"], found["episode_return/b"]) == (5.0, 5.0)
    assert means({**SUMS, "success/a": 3.0, "success/b": 0.0})["success_rate"] == 0.3
    assert means({**SUMS, "success": 0.0})["success_rate"] == 0.0
