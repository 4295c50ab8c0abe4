"""A study and the way to refer to one.

A study file ends in `study = wwopt.StudySpec(...)`. Processes and machines are handed a reference
to it (`file.py`, `file.py:attribute` or `module:attribute`), never a pickled function. What a study
is: `wwopt.study.spec`.
"""

import hashlib
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from wwopt.study.errors import StudyError
from wwopt.study.spec import StudySpec, train_elsewhere
from wwopt.wording import first_line

_FILE_MODULE = "wwopt_study_"  # prefix of the module name that a study file is loaded under


def load_study(reference: str) -> StudySpec:
    """Load the study that a reference names.

    Args:
        reference: `path/to/file.py` (its attribute `study`), `path/to/file.py:attribute`, or
            `module:attribute`.

    Raises:
        StudyError: if it is missing, raises on import, or is no study.
    """
    place, _, attribute = reference.rpartition(":") if ":" in reference else (reference, "", "")
    if not place.endswith(".py") and not attribute:
        raise StudyError(
            f"{reference!r} is no study: name a file (studies/digits.py) or module:attribute"
        )
    attribute = attribute or "study"
    path = Path(place)
    if place.endswith(".py") and not path.is_file():
        raise StudyError(f"study file {place} does not exist")
    try:
        module = _import_file(path) if place.endswith(".py") else importlib.import_module(place)
    except StudyError:  # the file itself says what is missing
        raise
    except (Exception, SystemExit) as error:
        raise StudyError(f"study {place} raised on import: {_where(error, path)}") from error
    if not hasattr(module, attribute):
        raise StudyError(f"{place} has no attribute {attribute!r}; end it in study = StudySpec(…)")
    study = getattr(module, attribute)
    if not isinstance(study, StudySpec):
        raise StudyError(f"{place}:{attribute} is a {type(study).__name__}, not a StudySpec")
    return study


def reference_of(study: StudySpec) -> str:
    """The reference under which another process finds this study.

    Raises:
        StudyError: if it is defined in `__main__` or inside a function, where none can.
    """
    name = getattr(study.train, "__module__", "__main__")
    module = sys.modules.get(name)
    if name == "__main__" or module is None:
        raise StudyError(
            f"study {study.name!r} is defined in __main__, where worker processes cannot import "
            f"it; put it into a file of its own, or use jobs=1"
        )
    for attribute, value in vars(module).items():
        if value is study:
            place = module.__file__ if name.startswith(_FILE_MODULE) else name
            return f"{place}:{attribute}"
    raise StudyError(
        f"study {study.name!r} is no attribute of the module {name}, so worker processes cannot "
        f"find it; assign it at module level, or use jobs=1"
    )


def hash_code(study: StudySpec) -> str | None:
    """A hash of the file that the study's `train` is defined in; None where there is none."""
    if study.train is train_elsewhere:
        return None
    module = sys.modules.get(getattr(study.train, "__module__", "__main__"))
    path = Path(getattr(module, "__file__", None) or "")
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else None


def _import_file(path: Path) -> ModuleType:
    path = path.resolve()
    name = f"{_FILE_MODULE}{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise StudyError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # As `python file.py` would: the file may import its neighbours.
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _where(error: BaseException, path: Path) -> str:
    """The error in one line, with the line of the study file that led to it."""
    text = first_line(error, named=True, longest=1000)
    if isinstance(error, SyntaxError):
        return f"{text} (line {error.lineno})"
    stack = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in stack if frame.filename == str(path.resolve())]
    return f"{text} (line {frames[-1].lineno})" if frames else text
