"""What the suite does when a test fails or takes long, and when its process dies."""

import os
import sys
import time

import pytest

_LONG, _BEAT = 60.0, 600.0  # seconds
_start, _beats = time.monotonic(), 0


def pytest_runtest_logreport(report):
    """Tells a failure, a minute gone, and where the run is: one that is cut off has no summary."""
    global _beats
    told = []
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        told.append((crash.message if crash else str(report.longrepr)).strip().splitlines()[0][:300])
    if report.duration > _LONG:
        told.append(f"{report.duration:.0f} s")
    if told:
        _tell(f"{report.nodeid}, {report.when}: {', '.join(told)}")
    if time.monotonic() - _start > _BEAT * (_beats + 1):
        _beats += 1
        _tell(f"after {(time.monotonic() - _start) / 60:.0f} min: {report.nodeid}")


def _tell(line):
    if "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{line}", file=sys.__stdout__, flush=True)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Ends the run: pytest-xdist would give the same test to a new process, and wait for ever in the end."""
    if not error:
        return
    scheduler = node.config.pluginmanager.getplugin("dsession").sched
    test = scheduler.remove_node(node) if node in scheduler.nodes else None
    pytest.exit(f"a test process died {f'in {test}' if test else 'outside any test'}", returncode=1)
