"""The model inside of what a trainer saved, beside optimizers, schedules, counters and copies.

Where there is one network it is found whatever its key. Between several a key that says "the model"
decides (`model`, `state_dict`, `net`, ...), then averaged copies (`ema`, ...) stand back; where
neither helps, the caller has to choose. An optimizer's state is never read as a model.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from wwopt.weights.checkpoint_keys import (
    MOMENTS,
    Content,
    is_matrix,
    is_network,
    is_optimizer,
    is_tensor,
    is_trainers,
    says_copy,
    says_model,
    survey,
)
from wwopt.weights.stored_tensors import StoredTensor, WeightsError, store_other, store_tensor
from wwopt.wording import count, shorten, write_names

_DEEPEST = 16  # nested mappings; deeper ones are cycles or not checkpoints


class NoChoiceError(WeightsError):
    """A key was given to choose a model by, and the source holds one model and no keys."""

    @classmethod
    def of(cls, source: object, key: str) -> "NoChoiceError":
        """The error about one source and the key that was given."""
        return cls(
            f"{source} holds one model under no key, so there is nothing for key {key!r} to choose;"
            " leave it out"
        )


@dataclass(frozen=True)
class FoundModel:
    """The state dict of one model, and what lay beside it."""

    state: Mapping[str, Any]  # name inside the model -> tensor, or what else is stored there
    beside: Mapping[str, str] = field(default_factory=dict)  # dotted path -> why it is not of it


def find_model(state: Mapping[Any, Any], *, where: str, key: str | None = None) -> FoundModel:
    """Find the model in a mapping, nested or not, and flatten it to dotted names.

    Tensors may be torch's, or `StoredTensor` where they lie elsewhere. Mappings that contain
    themselves end, and one that lies in two places is read in the first.

    Args:
        state: a state dict, or a mapping that holds one, however deep.
        where: what to call it in an error.
        key: dotted path of the model in it; None where there is no doubt.

    Raises:
        WeightsError: if there is no tensor in it, no model under that key, or several models of
            equal claim; as `NoChoiceError` if it is a plain state dict and a key was given.
    """
    beside: dict[str, str] = {}
    path, given = "", False  # given: a key says that this is the model, so what is in it are parts
    for step in [] if key is None else _follow(state, key, where):
        beside |= _describe_beside(state, step, path)
        state, path, given = state[step], f"{path}{step}.", True
    if not survey(state).tensors:
        raise WeightsError(_why_none(state, where))
    left: tuple[Any, ...] = ()
    for _ in range(_DEEPEST):
        step, left = _choose(state, path, where, given)
        if step is None:
            break
        given = given or says_model(step)
        beside |= _describe_beside(state, step, path)
        state, path = state[step], f"{path}{step}."
    flat: dict[str, Any] = {}
    for name, value in _flatten(state, left, path):
        if isinstance(value, _Beside):
            beside[f"{path}{name}"] = value.reason
            continue
        while name in flat:  # 1 beside "1", or "a.b" beside {"a": {"b": ...}}
            name += "'"
        flat[name] = value
    return FoundModel(flat, beside)


def store_state(
    state: Mapping[Any, Any], *, where: str = "the state dict", key: str | None = None
) -> list[StoredTensor]:
    """Describe every entry of the model in a mapping, in its order, then what lies beside it.

    Raises:
        WeightsError: as of `find_model`.
    """
    found = find_model(state, where=where, key=key)
    tensors = [
        store_tensor(name, value)
        if isinstance(value, torch.Tensor)
        else store_other(name, f"not a tensor: {type(value).__name__}", beside=True)
        for name, value in found.state.items()
    ]
    return tensors + store_beside(found)


def mark_moments(tensors: Sequence[StoredTensor]) -> list[StoredTensor]:
    """Give tensors that an optimizer keeps for parameters, told by their names, that reason."""
    return [
        replace(tensor, problem=tensor.problem or "optimizer state", beside=True)
        if tensor.name.rpartition(".")[2] in MOMENTS
        else tensor
        for tensor in tensors
    ]


def store_beside(found: FoundModel) -> list[StoredTensor]:
    """What lies beside a model, one entry for each key, with the reason why it is not read."""
    return [
        store_other(name if name not in found.state else f"{name} (beside)", reason, beside=True)
        for name, reason in found.beside.items()
    ]


def _choose(
    node: Mapping[Any, Any], path: str, where: str, given: bool
) -> tuple[Any | None, tuple[Any, ...]]:
    """The key under which the model lies, or None where it is all of the node but some keys."""
    # Inside of a model a part may be called "scaler"; beside it, that is the trainer's.
    trainers = () if given else tuple(k for k in _inner(node) if is_trainers(k))
    if is_network(node) and any(map(is_matrix, node.values())):
        return None, (*trainers, *(k for k in _inner(node) if says_copy(k)))
    contents = {k: survey(v) for k, v in node.items() if k not in trainers and _is_candidate(k, v)}
    most = {k for k, content in contents.items() if content.matrices}
    candidates = [k for k in contents if k in most or (not most and contents[k].tensors)]
    models = _distinct(node, [k for k in candidates if says_model(k)])
    copies = [k for k in candidates if says_copy(k)]
    others = [k for k in candidates if not says_model(k) and k not in copies]
    if models:
        if len(models) == 1:
            return models[0], ()
        rivals = models
    elif others:
        networks = [k for k in others if contents[k].networks]
        # A few tensors of its own, or layers without dots: one network, nested by its parts.
        loose = any(is_matrix(v) and not is_trainers(k) for k, v in node.items())
        if len(others) == 1 and networks and not loose:
            return others[0], ()
        if len(others) == 1 or not networks:
            return None, (*copies, *trainers)
        rivals = others
    elif len(_distinct(node, copies)) == 1:
        return copies[0], ()
    elif not copies:
        return None, trainers
    else:
        rivals = copies
    if given:
        return None, tuple(k for k in copies if k not in rivals)
    named = dict.fromkeys([*rivals, *copies])
    listed = [_size(f"{path}{k}", contents[k]) for k in named]
    raise WeightsError(
        f"{where} holds several models: {write_names(listed)}; choose one with --key NAME, in "
        "Python key=NAME"
    )


def _is_candidate(key: Any, value: Any) -> bool:
    return isinstance(value, Mapping) and not is_optimizer(key, value)


def _inner(node: Mapping[Any, Any]) -> list[Any]:
    """The keys of all but tensors."""
    return [k for k, v in node.items() if not is_tensor(v)]


def _distinct(node: Mapping[Any, Any], keys: list[Any]) -> list[Any]:
    """Keys without those that hold the very mapping of an earlier one."""
    return list({id(node[k]): k for k in reversed(keys)}.values())[::-1]


@dataclass(frozen=True)
class _Beside:
    """Stands in for a value that is no part of the model."""

    reason: str


def _flatten(
    node: Mapping[Any, Any], left: tuple[Any, ...], path: str
) -> Iterator[tuple[str, Any]]:
    """Name and value of every entry; a mapping that is no part of the model as the reason why."""
    seen = {id(node)}
    stack = [("", iter(node.items()))]
    while stack:
        prefix, entries = stack[-1]
        key, value = next(entries, (None, stack))
        if value is stack:  # the end of these entries
            stack.pop()
            continue
        name = f"{prefix}{key}"
        outside = len(stack) == 1 and key in left
        if not isinstance(value, Mapping):
            is_other = outside and not is_tensor(value)
            yield name, _Beside(_reason(key, value, f"{path}{name}")) if is_other else value
        elif outside or is_optimizer(key, value):
            yield name, _Beside(_reason(key, value, f"{path}{name}"))
        elif id(value) in seen:
            yield name, _Beside("the same mapping as one before it")
        elif len(stack) > _DEEPEST:
            yield name, _Beside(f"nested in more than {_DEEPEST} mappings")
        elif not value:
            yield name, value
        else:
            seen.add(id(value))
            stack.append((f"{name}.", iter(value.items())))


def _describe_beside(node: Mapping[Any, Any], chosen: Any, path: str) -> dict[str, str]:
    return {
        f"{path}{key}": f"the same as {chosen}"
        if value is node[chosen]
        else _reason(key, value, f"{path}{key}")
        for key, value in node.items()
        if key != chosen
    }


def _reason(key: Any, value: Any, path: str) -> str:
    """Why something beside a model is not read, in a line however much it holds."""
    content = survey(value, whole=True)
    if not content.tensors:
        return f"not a tensor: {type(value).__name__}"
    if is_tensor(value):
        return "a tensor beside the model"
    many = count(content.tensors, "tensor")
    if is_optimizer(key, value):
        return f"optimizer state: {many}"
    if _is_candidate(key, value) and not is_trainers(key) and survey(value).matrices:
        return f"another model: {many} (key {path!r})"
    return f"not of the model: {many}"


def _follow(node: Mapping[Any, Any], key: str, where: str) -> list[Any]:
    """The keys that a dotted path stands for; names may hold dots themselves."""
    found = _candidates_below(node)
    if not found and survey(node).tensors:
        raise NoChoiceError.of(where, key)
    steps = _split(node, key)
    value: Any = node
    for step in steps:
        value = value[step]
        if is_optimizer(step, value):
            raise WeightsError(f"{where}: {key!r} is optimizer state, no model{_there_is(found)}")
    if not steps:
        raise WeightsError(f"{where} has no key {key!r}{_there_is(found)}")
    if not survey(value).tensors or not isinstance(value, Mapping):
        kind = "one tensor" if is_tensor(value) else f"of type {type(value).__name__}"
        raise WeightsError(f"{where}: {key!r} is {kind}, no mapping with tensors{_there_is(found)}")
    return steps


def _split(node: Any, key: str) -> list[Any]:
    if not isinstance(node, Mapping):
        return []
    for name, value in node.items():
        if str(name) == key:
            return [name]
        if key.startswith(f"{name}.") and (rest := _split(value, key[len(str(name)) + 1 :])):
            return [name, *rest]
    return []


def _candidates_below(node: Mapping[Any, Any]) -> list[str]:
    """The mappings with tensors in a checkpoint, with their sizes; larger ones first."""
    contents = {
        str(k): survey(v) for k, v in node.items() if _is_candidate(k, v) and not is_trainers(k)
    }
    ordered = sorted(contents.items(), key=lambda item: -item[1].matrices)
    return [_size(name, content) for name, content in ordered if content.tensors]


def _there_is(listed: list[str]) -> str:
    return f"; there is {write_names(listed)}" if listed else ""


def _size(name: str, content: Content) -> str:
    return f"{shorten(name)} ({count(content.tensors, 'tensor')}, {content.numbers:,} numbers)"


def _why_none(state: Mapping[Any, Any], where: str) -> str:
    keys = ", ".join(repr(shorten(str(k)) if isinstance(k, str) else k) for k in list(state)[:5])
    whole = survey(state, whole=True).tensors
    holds = f"tensors only in lists and optimizers, {whole} of them" if whole else "no tensors"
    return f"{where} holds {holds} (keys: {keys or 'none'}); pass a state dict"
