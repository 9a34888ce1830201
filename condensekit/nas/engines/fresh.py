"""Fresh evaluators: each trial gets an evaluator as it was before the first trial, also in a process of many trials.

NNI makes evaluators for one trial in each process. Those of Lightning keep a trainer, which has ended after the first
trial, and callbacks and metrics that count on.
"""

from __future__ import annotations

import copy
import sys
from typing import Any

from nni.common.serializer import is_traceable
from nni.nas.evaluator import Evaluator, FunctionalEvaluator
from torch import nn
from torch.utils.data import Dataset

from condensekit.errors import ConfigError


def fresh(value: Any) -> Any:
    """A value as it was when it was made, without the state of trials.

    Objects of ``nni.trace`` are made again from their arguments; modules and Lightning's objects among the arguments
    are copied, and so are other evaluators that have such objects. Data sets, functions, numbers and other objects are
    shared.
    """
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(fresh(one) for one in value) if any(map(_stateful, value)) else value
    if type(value) is dict:
        return {name: fresh(one) for name, one in value.items()} if any(map(_stateful, value.values())) else value
    if not _stateful(value):
        return value
    if _untraced(value):
        made = copy.copy(value)
        vars(made).update({name: fresh(one) for name, one in vars(value).items()})
        return made
    if not is_traceable(value, must_be_instance=True):
        return copy.deepcopy(value)
    again = value.trace_copy()
    again.trace_args = [fresh(one) for one in value.trace_args]
    again.trace_kwargs = {name: fresh(one) for name, one in value.trace_kwargs.items()}
    return again.get()


def _stateful(value: Any) -> bool:
    """Whether a trial may change a value, or one inside it, so that the next trial would find it changed."""
    if isinstance(value, (list, tuple)):
        return any(map(_stateful, value))
    if isinstance(value, dict):
        return any(map(_stateful, value.values()))
    if isinstance(value, (type, Dataset)) or hasattr(value, "prepare"):  # which condensekit's own evaluators have
        return False
    if _untraced(value):
        return _stateful(vars(value))
    return is_traceable(value, must_be_instance=True) or isinstance(value, nn.Module) or _of_lightning(value)


def _untraced(value: Any) -> bool:
    """Whether a value is an evaluator that is not to be made again: a copy of it has the functions of its user."""
    return isinstance(value, Evaluator) and (isinstance(value, FunctionalEvaluator) or not is_traceable(value))


def _of_lightning(value: Any) -> bool:
    lightning = sys.modules.get("pytorch_lightning")
    if lightning is None or isinstance(value, lightning.LightningDataModule):
        return False
    return any(base.__module__.partition(".")[0] == lightning.__name__ for base in type(value).__mro__)


def check_fresh(evaluator: Evaluator) -> None:
    """Raise ConfigError for an evaluator that cannot be made again for each trial from its arguments."""
    try:
        fresh(evaluator)
    except Exception as error:
        raise ConfigError(
            f"evaluator {type(evaluator).__name__} cannot be made again for each trial ({type(error).__name__}: "
            f"{error}): give it arguments that can be used twice, or use a FunctionalEvaluator"
        ) from error
