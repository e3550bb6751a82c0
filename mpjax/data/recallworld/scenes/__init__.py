"""The scenes by name. Each is one small module; what follows from it everywhere else is asked of the scene."""

from mpjax.data.recallworld.scenes.base import Scene
from mpjax.data.recallworld.scenes.bounce import Bounce
from mpjax.data.recallworld.scenes.curtain import Curtain
from mpjax.data.recallworld.scenes.exit_return import ExitReturn
from mpjax.data.recallworld.scenes.metronome import Metronome
from mpjax.data.recallworld.scenes.overwrite import Overwrite
from mpjax.data.recallworld.scenes.pan import PanBack
from mpjax.data.recallworld.scenes.shell_game import ShellGame

SCENES: dict[str, Scene] = {
    "R1": ExitReturn(enter=("a toy enters",), back=("the toy returns",)),
    "R2": ExitReturn(
        enter=("a toy enters", "another toy enters"), back=("the FIRST toy returns", "the SECOND toy returns")
    ),
    "R3": Overwrite(),
    "R4": Curtain(),
    "R5": PanBack(),
    "R6": ShellGame(),
    "D1": Bounce(),
    "D2": Metronome(),
}
