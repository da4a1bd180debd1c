"""What the suite does when a test process dies."""

import pytest


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Ends the run: pytest-xdist would give the same test to a new process, and wait for ever in the end."""
    if not error:
        return
    scheduler = node.config.pluginmanager.getplugin("dsession").sched
    test = scheduler.remove_node(node) if node in scheduler.nodes else None
    pytest.exit(f"a test process died {f'in {test}' if test else 'outside any test'}", returncode=1)
