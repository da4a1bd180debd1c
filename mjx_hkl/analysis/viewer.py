"""A session in a browser, by viser: the world and its panel, in real time."""

import concurrent.futures
import contextlib
import io
import queue
import socket
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
import viser

from mjx_hkl.analysis.panel import Panel
from mjx_hkl.analysis.solids import Solids
from mjx_hkl.analysis.watching import Follower, Session
from mjx_hkl.environments.view import View
from mjx_hkl.errors import UserError

_WORLD, _NUMBERS, _PLOTS, _LOOKS = 1 / 30, 1 / 8, 1 / 3, 2.0  # seconds between two of each, at least
_PAUSE = 0.5  # seconds on the last moment of an episode
_BEHIND = 0.25  # seconds that are made up for; more is left out


@contextlib.contextmanager
def serving(host: str, port: int) -> Iterator[viser.ViserServer]:
    """A server of pages at that port.

    Raises:
      UserError: the port is taken, or there is no such host.
    """
    try:  # viser would take the next port that is free
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (")[0]
        raise UserError(f"port {port} of {host}: {reason}; give another --port") from error
    # viser prints where it is and that it ends, whatever it is told.
    with contextlib.redirect_stdout(io.StringIO()):
        server = viser.ViserServer(host, port, label="mjx-hkl watch", verbose=False)
    try:
        yield server
    finally:
        with contextlib.redirect_stdout(io.StringIO()):
            server.stop()


class Viewer:
    """A page; one thread runs it, and only this one touches the session."""

    def __init__(
        self, server: viser.ViserServer, session: Session, name: str, follower: Follower | None = None
    ):
        """Builds the page.

        Args:
          server: of the page.
          session: that is watched.
          name: of agent and environment, for people.
          follower: of the run that is watched; None of an agent.

        Raises:
          UserError: the world cannot be drawn.
        """
        self._session, self._follower = session, follower
        self._scenery = session.world.scenery()
        self._changes: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        server.gui.configure_theme(show_logo=False, show_share_button=False)
        server.gui.main_panel.dock_right()
        _prepare(server, self._scenery.view)
        self._solids = Solids(server, self._scenery)
        self._panel = Panel(server.gui, session, name, follower, self._changes.put)
        self._panel.follow(self._scenery.view.follows)
        self._due = time.monotonic()  # when the next step is
        self._shown: dict[str, float] = {}  # when what was last shown
        self._counted, self._reached = (self._due, 0), 0.0
        self._steps = 0
        self._show()

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Plays in real time until told to stop; a browser that is slow misses frames."""
        looking = None
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            while not until():
                looking = self._look(pool, looking)
                if self._change() or not self._panel.plays:
                    self._due = max(self._due, time.monotonic())
                elif time.monotonic() >= self._due:
                    self._play()
                time.sleep(min(max(self._due - time.monotonic(), 0.001), 0.02))

    def _play(self) -> None:
        """The step that is due, and what is due to be shown."""
        session = self._session
        told, now = session.step(), time.monotonic()
        self._panel.note()
        self._steps += 1
        seconds = session.world.control_seconds / self._panel.speed
        self._due = max(self._due + seconds, now - _BEHIND)
        if told.is_last:
            self._due = max(self._due, now + _PAUSE)
            self._counted = self._due, self._steps
        if told.is_last or self._is_time("world", _WORLD):
            self._show_world()
        if told.is_last or self._is_time("numbers", _NUMBERS):
            self._panel.show_numbers(self._speed_reached(now))
            self._panel.show_chosen()
        if self._is_time("plots", _PLOTS):
            self._panel.show_plots()

    def _change(self) -> bool:
        """Does what was asked for on the page; whether there was anything."""
        changed = False
        while not self._changes.empty():
            self._changes.get()()
            changed = True
        if changed:
            self._show()
        return changed

    def _show(self) -> None:
        self._show_world()
        self._panel.show_numbers(None)
        self._panel.show_chosen()

    def _show_world(self) -> None:
        visible = self._session.visible
        marks = jax.device_get(self._scenery.marks(visible))
        self._solids.draw(visible, marks, self._panel.follows)

    def _speed_reached(self, now: float) -> float:
        """Simulated seconds in a second, over the last second of an episode; 0 before there is one."""
        since, steps = self._counted
        if now - since > 1.0:
            self._reached = (self._steps - steps) * self._session.world.control_seconds / (now - since)
            self._counted = now, self._steps
        return self._reached

    def _is_time(self, what: str, seconds: float) -> bool:
        now = time.monotonic()
        if now - self._shown.get(what, 0.0) < seconds:
            return False
        self._shown[what] = now
        return True

    def _look(
        self, pool: concurrent.futures.Executor, looking: concurrent.futures.Future | None
    ) -> concurrent.futures.Future | None:
        """Looks for a newer agent on another thread; here it takes the place of the one that acts."""
        if self._follower is None:
            return None
        if looking is None:
            return pool.submit(self._follower.newer) if self._is_time("agent", _LOOKS) else None
        if not looking.done():
            return looking
        if (known := looking.result()) is not None:
            self._session.agent = known.agent
        self._panel.show_numbers(None)
        return None


def _prepare(server: viser.ViserServer, view: View) -> None:
    """Light, and where the camera is at first: as in pictures of the world."""
    server.scene.set_up_direction("+z")
    server.scene.configure_environment_map("studio", environment_intensity=0.2)
    azimuth, elevation = np.radians([view.azimuth, view.elevation])
    ahead = np.array(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
    )
    camera, lookat = server.initial_camera, np.array(view.lookat)
    camera.look_at, camera.position = lookat, lookat - view.distance * ahead
    camera.fov = np.radians(45.0)  # MuJoCo's
