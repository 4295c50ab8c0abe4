"""Every score that `objective_vs_test_error.py` compares, each an array with one value a network.

Lower is better in all of them. Three kinds: what reads weights alone, what reads the training too,
and what reads labels that training did not see. Fitted models are trees on features of the layers,
judged out of fold: they say what a kind of feature could give, and are no score to be used.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import GroupKFold, cross_val_predict

import wwopt
from harness.zoos.records import Network

Array = NDArray[np.float64]
DEFAULT = wwopt.SpectralObjective()
VALIDATION_FREE = wwopt.SpectralObjective("validation-free")


def weights_only(networks: list[Network], checkpoint: str) -> dict[str, Array]:
    """Scores that read the weights of a checkpoint, and the baselines among them."""
    metrics = [network.metrics(checkpoint) for network in networks]

    def mean(read: Callable[[wwopt.LayerMetrics], float]) -> Array:
        return np.array([np.mean([read(layer) for layer in model.counted]) for model in metrics])

    moved = [network.movement(checkpoint) for network in networks]
    return {
        "wwopt, weights only": np.array([DEFAULT(model).value for model in metrics]),
        "mean alpha": mean(lambda layer: layer.alpha),
        "mean abs(alpha - 2)": mean(lambda layer: abs(min(layer.alpha, 8.0) - 2.0)),
        "alpha-hat": mean(lambda layer: layer.alpha_weighted),
        "log norm": mean(lambda layer: layer.log_norm),
        "log spectral norm": mean(lambda layer: layer.log_spectral_norm),
        "stable rank": mean(lambda layer: -layer.stable_rank),
        "traps": mean(lambda layer: layer.trap_z),
        "abs(log movement)": np.array([np.mean(np.abs(np.log(m))) for m in moved]),
    }


def reads_training(networks: list[Network], checkpoint: str) -> dict[str, Array]:
    """The training loss and its kin, and the validation-free score on top of it."""
    loss, running, summed = (
        np.array([network.outcome(key, checkpoint) for network in networks])
        for key in ("trl", "ema", "sotl")
    )
    metrics = [network.metrics(checkpoint) for network in networks]
    free, free_running = (
        np.array(
            [
                VALIDATION_FREE(model, train_loss=float(value)).value
                for model, value in zip(metrics, values, strict=True)
            ]
        )
        for values in (loss, running)
    )
    scores = {
        "training loss": loss,
        "wwopt, validation-free": free,
        "running loss": running,
        "wwopt, validation-free, running": free_running,
    }
    return scores | ({} if np.isnan(summed).any() else {"sum of losses": summed})


def reads_labels(networks: list[Network], checkpoint: str) -> dict[str, Array]:
    """Validation error on as many labelled examples as the zoo recorded."""
    keys = {100: "vaa100", 300: "vaa300", 1000: "vaa"}
    found = {
        count: np.array([1.0 - network.outcome(key, checkpoint) for network in networks])
        for count, key in keys.items()
    }
    return {
        f"validation on {count}": error
        for count, error in found.items()
        if not np.isnan(error).any()
    }


def fitted_models(networks: list[Network], checkpoint: str, truth: Array) -> dict[str, Array]:
    """Out-of-fold predictions of trees: what each kind of feature says about the truth."""
    moments = [_moments(network, checkpoint) for network in networks]
    spectra = [_spectra(network, checkpoint) for network in networks]
    moved = [np.log(network.movement(checkpoint)) for network in networks]
    losses = [[math.log(network.outcome("trl", checkpoint) + 1e-3)] for network in networks]
    sets = {
        "moments": (moments,),
        "spectra": (spectra,),
        "moments + spectra": (moments, spectra),
        "movement": (moved,),
        "movement + spectra": (moved, spectra),
        "loss + moments": (losses, moments),
        "loss + spectra": (losses, spectra),
        "loss": (losses,),
    }
    groups = np.array([network.config.get("config", network.index) for network in networks])
    folds = GroupKFold(n_splits=min(8, len(set(groups))))
    found = {}
    for name, parts in sets.items():
        features = np.hstack([np.array(part, dtype=np.float64) for part in parts])
        trees = ExtraTreesRegressor(200, min_samples_leaf=2, random_state=0)
        found[f"fitted: {name}"] = cross_val_predict(
            trees, np.nan_to_num(features), _ranks(truth), groups=groups, cv=folds
        )
    return found


def transferred(zoos: dict[str, list[Network]], name: str, checkpoint: str) -> dict[str, Array]:
    """Predictions for one zoo of trees that were fitted to all the others, at every checkpoint.

    What a calibrated model would be worth on a task that it has not seen. Features are the mean,
    smallest, largest and spread over a network's layers; the truth is the rank within a zoo.
    """
    found = {}
    for kind, read in (("moments", _moments), ("spectra", _spectra)):
        features, truths = [], []
        for other, networks in zoos.items():
            errors = np.array([1.0 - network.outcome("tea") for network in networks])
            for at in ("0.5", "1.0") if other != name else ():
                features += [_pooled(read(network, at), network) for network in networks]
                truths.append(_ranks(errors))
        trees = ExtraTreesRegressor(300, min_samples_leaf=3, random_state=0)
        trees.fit(np.array(features), np.concatenate(truths))
        own = [_pooled(read(network, checkpoint), network) for network in zoos[name]]
        found[f"transferred: {kind}"] = trees.predict(np.array(own))
    return found


def _pooled(values: list[float], network: Network) -> Array:
    layers = np.nan_to_num(np.array(values, dtype=np.float64).reshape(len(network.names), -1))
    parts = (layers.mean(0), layers.min(0), layers.max(0), layers.std(0))
    return np.concatenate(parts)


def _moments(network: Network, checkpoint: str) -> list[float]:
    """Four element moments a layer, no eigenvalue: mean, variance, kurtosis, largest weight."""
    return [
        value
        for layer in network.metrics(checkpoint).layers
        for value in (
            layer.element_mean / math.sqrt(layer.element_variance),
            math.log(layer.element_variance),
            math.log(layer.kurtosis),
            math.log(layer.max_abs),
        )
    ]


def _spectra(network: Network, checkpoint: str) -> list[float]:
    return [
        value
        for layer in network.metrics(checkpoint).layers
        for value in (
            math.log(max(layer.hill, 1.001) - 1.0) if layer.hill > 1.0 else math.nan,
            math.log(min(max(layer.signal_to_bulk, 0.003), 1e3)),
            math.log(layer.stable_rank),
            math.log(layer.spectral_norm / layer.unit),
            math.copysign(math.log1p(abs(layer.trap_z)), layer.trap_z),
            layer.alpha,
            layer.tail_cutoff,
        )
    ]


def _ranks(truth: Array) -> Array:
    return np.argsort(np.argsort(truth)) / len(truth)
