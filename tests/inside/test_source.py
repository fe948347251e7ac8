"""The code of a function, as it is shown."""

from __future__ import annotations

import numpy as np

from numpy_gpt2 import layers
from numpy_gpt2.inside.source import source


def test_the_source_is_shown_without_its_docstring() -> None:
    shown = source(layers.softmax)
    assert shown.splitlines()[0] == "def softmax(x: Array) -> Array:"
    assert '"""' not in shown
    assert "e = np.exp(x - np.max(x, axis=-1, keepdims=True))" in shown
    code = compile("from __future__ import annotations\nimport numpy as np\n" + shown, "shown", "exec")
    scope: dict[str, object] = {}
    exec(code, scope)
    assert scope["softmax"](np.zeros(4)).tolist() == [0.25] * 4  # type: ignore[operator]
