"""Figure 2: the training loop as a diagram.

Particles start from the initial density and move under the potential and the quantum potential of the
score that is trained (black). Tangents go along, so the score of the density which this flow really makes
is known. The two scores are compared on the particles, and the gradient of their distance goes back through
all steps of the flow to the parameters (orange, dashed). Under each formula is its name in bohmdiff.
"""

from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

import _paper
from bohmdiff.plot._style import style

WIDTH, HEIGHT = 3.1, 1.3
FORWARD = {"color": "black", "ls": "-"}
BACKWARD = {"color": "#D55E00", "ls": "--"}


class Box(NamedTuple):
    """A step of the loop, and where it stands."""

    x: float
    y: float
    heading: str
    formula: str
    name: str
    look: dict[str, str] = FORWARD


PARTICLES = Box(5.6, 0.75, "initial particles", r"$x_0\sim\rho_0,\quad m v_0=\nabla S_0$", "SobolPoints")
SCORE = Box(1.6, 2.75, "score", r"$s_\theta=s_\mathrm{base}+\nabla\varphi_\theta$", "NeuralScore")
FLOW = Box(
    5.6,
    2.75,
    "flow with tangents $F$, $\\nabla_{x_0}F$",
    r"$m\,\ddot x=-\nabla(V+Q[s_\theta])$",
    "propagate, VelocityVerlet",
)
OWN = Box(
    9.6,
    2.75,
    "score of the flow's density",
    r"$s_\rho=F^{-\top}[\,s_0-\nabla_{x_0}\ln|\det F|\,]$",
    "flow.pushed_score",
)
LOSS = Box(
    9.6, 4.9, "loss", r"$\dfrac{1}{T}\int_0^T dt\;\mathrm{E}\,|s_\theta-s_\rho|^2$", "FisherDivergence"
)
GRADIENT = Box(
    5.6,
    4.9,
    "gradient through the flow",
    r"$\nabla_\theta L$ by recursive checkpoints",
    "RecursiveCheckpointAdjoint",
    BACKWARD,
)
OPTIMISER = Box(
    1.6,
    4.9,
    "optimiser",
    r"$\theta\leftarrow\theta-\mathrm{step}(\nabla_\theta L)$",
    "optax.adam",
    BACKWARD,
)


def main() -> None:
    options = _paper.parser(__doc__).parse_args()
    _paper.save_figure(diagram(), options.out, "figure2.png")
    _paper.save_json({}, options.json)


def diagram() -> Figure:
    with style():
        figure, axes = plt.subplots(figsize=(10, 5.3))
        axes.set(xlim=(-0.1, 11.3), ylim=(0, 5.65), aspect="equal")
        axes.axis("off")
        for box in (PARTICLES, SCORE, FLOW, OWN, LOSS, GRADIENT, OPTIMISER):
            draw(axes, box)
        arrow(axes, PARTICLES, FLOW, FORWARD)
        arrow(axes, SCORE, FLOW, FORWARD)
        arrow(axes, FLOW, OWN, FORWARD)
        arrow(axes, OWN, LOSS, FORWARD)
        arrow(axes, LOSS, GRADIENT, BACKWARD)
        arrow(axes, GRADIENT, OPTIMISER, BACKWARD)
        arrow(axes, OPTIMISER, SCORE, BACKWARD)
        corner = (
            (FLOW.x + 0.42 * WIDTH, FLOW.y + HEIGHT / 2),
            (LOSS.x - 0.42 * WIDTH, LOSS.y - HEIGHT / 2),
        )
        connect(axes, *corner, FORWARD)
        axes.text(7.25, 3.9, r"$s_\theta(t, x(t))$", ha="right", va="center")
        axes.text(2.8, 0.75, "every epoch: new particles", ha="center", va="center", color="0.35")
        axes.text(1.75, 3.83, r"new $\theta$", ha="left", va="center", color=BACKWARD["color"])
    return figure


def draw(axes: Axes, box: Box) -> None:
    corner = (box.x - WIDTH / 2, box.y - HEIGHT / 2)
    rounded = FancyBboxPatch(
        corner,
        WIDTH,
        HEIGHT,
        boxstyle="round,pad=0,rounding_size=0.12",
        fc="0.97",
        ec=box.look["color"],
        lw=1.3,
    )
    axes.add_patch(rounded)
    axes.text(box.x, box.y + 0.42, box.heading, ha="center", va="center", weight="bold", size=10)
    axes.text(box.x, box.y + 0.02, box.formula, ha="center", va="center", size=12)
    axes.text(
        box.x, box.y - 0.43, box.name, ha="center", va="center", family="monospace", size=8, color="0.35"
    )


def arrow(axes: Axes, start: Box, end: Box, look: dict[str, str]) -> None:
    """From the middle of the edge of one box to that of its neighbour."""
    right, up = (end.x > start.x) - (end.x < start.x), (end.y > start.y) - (end.y < start.y)
    half = (right * WIDTH / 2, up * HEIGHT / 2)
    connect(axes, (start.x + half[0], start.y + half[1]), (end.x - half[0], end.y - half[1]), look)


def connect(axes: Axes, start: tuple[float, float], end: tuple[float, float], look: dict[str, str]) -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 16, "lw": 1.8, "shrinkA": 2, "shrinkB": 2}
    axes.annotate("", end, start, arrowprops=style | look)


if __name__ == "__main__":
    _paper.run(main)
