"""Parts of the suite, for versions that are not the newest and for slow machines."""

import itertools
import time

import pytest

_STARTED = time.monotonic()
_FIRST = pytest.StashKey[bool]()  # whether an item is the first case of its test


def pytest_addoption(parser):
    told = "of each file the first N tests alone, and of each test its first case"
    parser.addoption("--first-tests", type=int, metavar="N", help=told)
    told = "after so many minutes begin only the first case of each test"
    parser.addoption("--first-cases-after", type=float, default=float("inf"), metavar="MINUTES", help=told)


def pytest_collection_modifyitems(config, items):
    firsts = {}
    for item in items:
        first = firsts.setdefault(item.nodeid.partition("[")[0], item)
        item.stash[_FIRST] = item is first
    count = config.getoption("first_tests")
    if count is None:
        return
    files = itertools.groupby(firsts.values(), lambda item: item.path)
    kept = [item for _, tests in files for item in itertools.islice(tests, count)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


@pytest.hookimpl(tryfirst=True)  # before fixtures are made
def pytest_runtest_setup(item):
    minutes = item.config.getoption("first_cases_after")
    if time.monotonic() - _STARTED > 60 * minutes and not item.stash[_FIRST]:
        pytest.skip(f"after {minutes:g} minutes only the first case of each test")
