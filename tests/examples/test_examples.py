"""The examples run as scripts, and print what their docstrings promise."""

import re
import runpy
import warnings
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"
PROMISED = {
    "01_own_model": [
        r"before: class 3 +9\d\.\d+%",
        r"after the edit: class 3 +\d\.\d+%, the other classes +9\d\.\d+%",
        r"reverted: class 3 +9\d\.\d+%",
    ],
    "02_own_objective": [
        r"function,  after: .*a 9\d\.\d%, b 9\d\.\d%",
        r"class,  after: .*a 9\d\.\d%, b 9[789]\.\d%",
    ],
    "03_scoring_only": [r"256 candidates in", r"plain PyTorch: (\{.*\})\ncorrect, scored: +\1"],
    "04_own_agent": [
        r"after: forget \d\.\d%, retain (100|9\d)\.\d%",
        r"single environment: reward 0\.\d+, terminated True",
    ],
    "05_debias_text": [
        r"before: .*bpsn_auc 0\.[67]\d+",
        r"after: utility_auc 0\.9\d+, .*bpsn_auc 0\.9\d+",
    ],
    "06_save_and_apply": [
        r"reverted, bit for bit: True",
        r"file and model agree: True",
        r"refused: the edit was learned for other weights",
    ],
    "08_searches": [
        r"unedited: forget (100|9\d)\.\d%",
        r"PPO: forget \d\.\d%, retain (100|9\d)\.\d% \((policy mean|elite)",
        r"ES: forget \d\.\d%, retain (100|9\d)\.\d% \((mean|elite)",
        r"HillClimbing: forget \d\.\d%, retain (100|9\d)\.\d% \((parent|elite)",
        r"RandomSearch: forget \d+\.\d%, retain (100|\d\d)\.\d% \(elite",
    ],
    "07_third_rule": [r"after: forget \d\.\d%, retain (100|9\d)\.\d%", r"Edit\(.*rows"],
    "09_several_requests": [
        r"forget 1 +\S+ +[0-2]\.\d+% +\S+ +[0-2]\.\d+% .*[ ]9\d\.\d+%\n",  # class 1, class 3, the others
        r"refused: 'forget 1': learned on weights that included 'forget 7'",
        r"accuracy of class 7: \d\.\d+% -> [5-9]\d\.\d+%",
        r"left is what the others give, bit for bit: True",
    ],
    "12_language_model": [
        r"Scorer\(48 samples, way=suffix",
        r"phrasings seen: the fact is known 100% -> 0%, the others 100% -> (9[5-9]|100)%",
        r"phrasings held out: the fact is known 100% -> 0%, the others 100% -> (9[0-9]|100)%",
    ],
    "11_debias_own_classifier": [
        r"before: accuracy [78]\d\.\d%, .*female & black (100|[789]\d)%",
        r" after: accuracy [89]\d\.\d%, .*female & black [1-4]?\d%",
        r"only layer 0 differs: True",
    ],
    "10_hidden_from_probes": [
        r"accuracy alone: forget \d\.\d%, retain (100|9\d)\.\d%, a probe recalls (100|9\d)\.\d%",
        r"hidden: forget \d\.\d%, retain (100|9\d)\.\d%, a probe recalls [1-7]\d\.\d%",
    ],
}
"""What an example prints, as regular expressions in any order."""


def test_every_example_is_run() -> None:
    assert sorted(PROMISED) == sorted(path.stem for path in FOLDER.glob("[0-9]*.py"))


# In this process: starting Python and torch takes as long as most examples.
@pytest.mark.slow
@pytest.mark.usefixtures("rules", "one_thread")
@pytest.mark.parametrize("name", sorted(PROMISED))
def test_example(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=DeprecationWarning, module="__main__")
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr().out
    for pattern in PROMISED[name]:
        assert re.search(pattern, printed), f"{pattern!r} not in:\n{printed}"
    assert not list(tmp_path.iterdir()), "an example has left files behind"
