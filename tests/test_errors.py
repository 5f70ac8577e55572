"""Who is to blame: a user's error is one line and status 2, any other error keeps its traceback."""

import numpy as np
import pytest

from kfusion.config import TrainingConfig
from kfusion.rules import UserError
from kfusion.system.terminal import run_main


def test_a_users_error_is_one_line_and_status_2(capsys):
    with pytest.raises(SystemExit) as end:
        run_main(lambda: TrainingConfig(epochs=0) and None)
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("kfusion: 'epochs' must be")
    assert message.count("\n") == 1


def test_a_fault_of_numpy_or_keras_is_not_dressed_as_a_users_error(capsys):
    def fault() -> None:
        np.zeros(3).reshape(2, 2)

    with pytest.raises(ValueError, match="cannot reshape") as error:
        run_main(fault)
    assert not isinstance(error.value, UserError)
    assert capsys.readouterr().err == ""
