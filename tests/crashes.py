"""What the suite does when a test fails or takes long, and when its process dies."""

import os
import sys

import pytest

_LONG = 60.0  # seconds


def pytest_runtest_logreport(report):
    """Tells a failure, or a minute gone, when it happens: a run that is cut off has no summary."""
    told = []
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        told.append((crash.message if crash else str(report.longrepr)).strip().splitlines()[0][:300])
    if report.duration > _LONG:
        told.append(f"{report.duration:.0f} s")
    if told and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.nodeid}, {report.when}: {', '.join(told)}", file=sys.__stdout__, flush=True)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Ends the run: pytest-xdist would give the same test to a new process, and wait for ever in the end."""
    if not error:
        return
    scheduler = node.config.pluginmanager.getplugin("dsession").sched
    test = scheduler.remove_node(node) if node in scheduler.nodes else None
    pytest.exit(f"a test process died {f'in {test}' if test else 'outside any test'}", returncode=1)
