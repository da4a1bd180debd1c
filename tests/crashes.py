"""What the suite does when a test fails, and when its process dies."""

import os
import sys

import pytest


def pytest_runtest_logreport(report):
    """Tells a failure when it happens: a run that is cut off never comes to its summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        crash = getattr(report.longrepr, "reprcrash", None)
        why = (crash.message if crash else str(report.longrepr)).strip().splitlines()[0][:300]
        print(f"\n{report.nodeid}, {report.when}: {why}", file=sys.__stdout__, flush=True)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Ends the run: pytest-xdist would give the same test to a new process, and wait for ever in the end."""
    if not error:
        return
    scheduler = node.config.pluginmanager.getplugin("dsession").sched
    test = scheduler.remove_node(node) if node in scheduler.nodes else None
    pytest.exit(f"a test process died {f'in {test}' if test else 'outside any test'}", returncode=1)
