"""The panel beside a watched world: buttons, sliders, numbers and plots, by viser."""

import collections
import html
from collections.abc import Callable
from typing import Any

import numpy as np
import viser
from viser import uplot

from mjx_hkl.analysis.watching import Follower, Session
from mjx_hkl.environments.choices import Choice

_SPAN = 2.0  # standard deviations of the prior that the slider of a latent has on either side
_PLOTTED = 200  # control steps in a plot
_BLUE, _ORANGE, _GREEN = "#3b74c9", "#e07b39", "#3a9d5d"
_DIRECTIONS = {"random": None, "+x": 0.0, "+y": np.pi / 2, "-x": np.pi, "-y": -np.pi / 2}
_BAR = (
    '<div style="position:relative;height:7px;margin:3px 0;background:#e8eaee;border-radius:3px">'
    '<div style="position:absolute;height:7px;border-radius:3px;background:{colour};'
    'left:{left:.0f}%;width:{width:.0f}%"></div></div>'
)
_ROW = '<tr><td style="padding-right:1em;color:#777">{}</td><td>{}</td></tr>'

Later = Callable[[Callable[[], object]], None]
"""Hands a change of the session to the thread that steps it."""


class Panel:
    """All controls of a session, and what they show.

    viser calls a control's function on a thread of its own, so each hands its change on.

    Attributes:
      plays: whether time goes on.
    """

    def __init__(
        self, gui: viser.GuiApi, session: Session, name: str, follower: Follower | None, later: Later
    ):
        """Adds the controls to a page.

        Args:
          gui: the page's.
          session: what they control.
          name: of agent and environment, for people.
          follower: of the run that is watched; None of an agent.
          later: see `Later`.
        """
        self._gui, self._session, self._follower, self._later = gui, session, follower, later
        self._title, self.plays = name, True
        self._history: collections.deque[tuple[float, ...]] = collections.deque(maxlen=_PLOTTED)
        self._total = 0.0  # simulated seconds in all
        self._numbers = gui.add_html("")
        self._add_time()
        self._asked = self._add_instruction() if session.choices else {}
        if session.can_push:
            self._add_push()
        self._sliders = self._add_latents() if session.latent_size else []
        self._plots = self._add_plots() if session.value_name else []
        self._actions = self._add_actions()

    @property
    def speed(self) -> float:
        """Simulated seconds in a second."""
        return self._speed.value

    @property
    def follows(self) -> bool:
        """Whether the camera follows the body."""
        return self._follows.value

    def follow(self, follows: bool) -> None:
        """Whether it does at first."""
        self._follows.value = follows

    def note(self) -> None:
        """Keeps the newest step for the plots."""
        self._total += self._session.world.control_seconds
        if self._session.last and self._session.last.judgement:
            self._history.append((self._total, *map(float, self._session.last.judgement)))

    def show_numbers(self, reached: float | None) -> None:
        """Numbers, action and latents as they are now; `reached`: simulated seconds in a second."""
        self._numbers.content = self._table(reached)
        last = self._session.last
        if last is None:
            return
        bars = "".join(map(_bar, np.atleast_1d(last.action)))
        self._actions.content = f'<div style="padding:0 0.8em 0.4em">{bars}</div>'
        if self._sliders and last.latent is not None and not self._holds.value:
            for slider, number in zip(self._sliders, last.latent, strict=True):
                slider.value = _rounded(number)

    def show_chosen(self) -> None:
        """What is asked for now, where the task chooses it."""
        if not self._asked or self._chooses.value:
            return
        for name, value in self._session.chosen().items():
            self._asked[name].value = _shown(self._session.choices[name], value)

    def show_plots(self) -> None:
        """KL and value of the newest steps."""
        if len(self._history) > 1:
            columns = np.array(self._history).T
            for plot, numbers in self._plots:
                plot.data = tuple(columns[[0, *numbers]])

    def _table(self, reached: float | None) -> str:
        session, last = self._session, self._session.last
        rows = {"time": f"{session.seconds:.1f} s" + (f", {reached:.1f}× real time" if reached else "")}
        if self._follower is not None:
            rows["agent"] = f"{self._follower.environment_steps:,} environment steps"
            if self._follower.trouble:
                rows["newer agent"] = html.escape(self._follower.trouble)
        rows["return"] = f"{session.episode_return:.2f}"
        if session.world.can_succeed:
            rows["success"] = f"{session.successes} of {session.episodes} episodes"
        else:
            rows["episodes"] = str(session.episodes)
        if last is not None and last.judgement is not None:
            high, low, value = map(float, last.judgement)
            if session.latent_size:
                rows["KL high"] = f"{high:.2f} nats"
            if self._has_low:
                rows["KL low"] = f"{low:.2f} nats"
            rows[session.value_name] = f"{value:.2f}"
        body = "".join(_ROW.format(name, text) for name, text in rows.items())
        title = f"<b>{html.escape(self._title)}</b>"
        return f'<div style="padding:0.4em 0.8em;font-size:0.85em">{title}<table>{body}</table></div>'

    @property
    def _has_low(self) -> bool:
        return bool(self._session.value_name) and self._session.agent.default_policy.low_level.adds_kl

    def _add_time(self) -> None:
        gui, session = self._gui, self._session
        button = gui.add_button("Pause", icon=viser.Icon.PLAYER_PAUSE, color="blue")
        steps = gui.add_button_group("", ("Step", "New start"))

        def toggle() -> None:
            self.plays = not self.plays
            button.label = "Pause" if self.plays else "Play"
            button.icon = viser.Icon.PLAYER_PAUSE if self.plays else viser.Icon.PLAYER_PLAY

        def step() -> None:
            if self.plays:
                toggle()
            session.step()
            self.note()
            self.show_plots()

        button.on_click(lambda _: self._later(toggle))
        steps.on_click(lambda event: self._later(step if event.target.value == "Step" else session.restart))
        self._speed = gui.add_slider("Speed", 0.1, 3.0, 0.1, 1.0, hint="Simulated seconds in a second")
        self._follows = gui.add_checkbox("Camera follows", False)
        if session.can_sample:
            samples = gui.add_checkbox("Sample", not session.mean, hint="Latents and actions, not means")
            samples.on_update(lambda _: self._later(lambda: setattr(session, "mean", not samples.value)))

    def _add_instruction(self) -> dict[str, Any]:
        """The controls by the names of the choices."""
        gui, session = self._gui, self._session
        with gui.add_folder("Instruction"):
            hint = "On: it stays as it is set here. Off: the task chooses"
            self._chooses = gui.add_checkbox("Choose", False, hint=hint)
            asked = {name: _control(gui, name, choice) for name, choice in session.choices.items()}

        def choose() -> None:
            for name, control in asked.items():
                value = _value(session.choices[name], control.value) if self._chooses.value else None
                session.choose(name, value)

        _when_touched(self._chooses, lambda: self._later(choose))
        for control in asked.values():
            _when_touched(control, lambda: (setattr(self._chooses, "value", True), self._later(choose)))
        return asked

    def _add_push(self) -> None:
        with self._gui.add_folder("Push"):
            speed = self._gui.add_slider("Change (m/s)", 0.1, 5.0, 0.1, 1.0)
            direction = self._gui.add_dropdown("Direction", tuple(_DIRECTIONS))
            button = self._gui.add_button("Push", icon=viser.Icon.HAND_FINGER)

        def push() -> None:
            self._session.push(speed.value, _DIRECTIONS[direction.value])

        button.on_click(lambda _: self._later(push))

    def _add_latents(self) -> list[Any]:
        """The sliders."""
        gui, session = self._gui, self._session
        with gui.add_folder("Latent z"):
            self._holds = gui.add_checkbox("Hold", False, hint="On: the low level gets the sliders' z")
            sliders = [
                gui.add_slider(f"z{i + 1}", -_SPAN, _SPAN, 0.05, 0.0, marks=((0.0, ""),))
                for i in range(session.latent_size)
            ]
            draw = gui.add_button_group("", ("All 0", "From N(0, 1)"))

        def hold() -> None:
            values = [slider.value for slider in sliders]
            session.hold(np.array(values, np.float32) if self._holds.value else None)

        def held() -> None:
            self._holds.value = True
            self._later(hold)

        def set_all(event: Any) -> None:
            self._holds.value = True  # first, or else the sliders would show what the policy draws
            drawn = np.random.default_rng().standard_normal(len(sliders)) * (event.target.value != "All 0")
            for slider, number in zip(sliders, drawn, strict=True):
                slider.value = _rounded(number)
            held()

        _when_touched(self._holds, lambda: self._later(hold))
        for slider in sliders:
            _when_touched(slider, held)
        draw.on_click(set_all)
        return sliders

    def _add_plots(self) -> list[tuple[Any, tuple[int, ...]]]:
        """The plots, and which numbers of the history each shows beside time."""
        plots, session = [], self._session
        kl = {1: ("KL high", _BLUE)} if session.latent_size else {}
        kl |= {2: ("KL low", _ORANGE)} if self._has_low else {}
        for lines in (kl, {3: (session.value_name, _GREEN)}):
            if not lines:
                continue
            series = [uplot.Series(label=name, stroke=colour, width=2) for name, colour in lines.values()]
            plot = self._gui.add_uplot(
                tuple(np.zeros((1 + len(lines), 2))),
                (uplot.Series(label="s"), *series),
                title=" and ".join(name for name, _ in lines.values()),
                legend=uplot.Legend(show=len(lines) > 1),
                scales={"x": uplot.Scale(time=False, auto=True)},
                aspect=3.0,
            )
            plots.append((plot, tuple(lines)))
        return plots

    def _add_actions(self) -> Any:
        with self._gui.add_folder("Action, from -1 to 1"):
            return self._gui.add_html("")


def _when_touched(control: Any, do: Callable[[], object]) -> None:
    """Calls it where somebody at a browser changes the control, and not where the panel itself does."""
    control.on_update(lambda event: do() if event.client is not None else None)


def _control(gui: viser.GuiApi, name: str, choice: Choice) -> Any:
    if choice.is_named:
        return gui.add_dropdown(name, [str(value) for value in choice.values])
    low, high = map(float, choice.values)
    return gui.add_slider(name, low, high, (high - low) / 100, low)


def _shown(choice: Choice, value: float) -> Any:
    """A value as its control has it."""
    return choice.values[int(value)] if choice.is_named else value


def _value(choice: Choice, shown: Any) -> float:
    """What a control shows as a value."""
    return choice.values.index(shown) if choice.is_named else shown


def _rounded(number: float) -> float:
    """As a slider of a latent can show it."""
    return round(float(np.clip(number, -_SPAN, _SPAN)), 2)


def _bar(number: float) -> str:
    """From the middle to a number in [-1, 1]."""
    end = 50 + 50 * float(np.clip(number, -1, 1))
    return _BAR.format(left=min(50, end), width=max(1, abs(end - 50)), colour=_BLUE)
