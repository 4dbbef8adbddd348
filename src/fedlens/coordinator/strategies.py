"""From the mean update to the next global model: steps 5 and 6 of EFDL section 3.1.

========  ==========================  ================================================================
strategy  differs from FedAvg in      source
========  ==========================  ================================================================
fedavg                                McMahan et al. 2017, algorithm 1
fedprox   the local loss              Li et al. 2020, "Federated Optimization in Heterogeneous Networks"
fedbn     normalisation stays home    Li et al. 2021, "FedBN"
fedavgm   the server's step           Hsu et al. 2019, section 4.3
fedadam   the server's step           Reddi et al. 2021, algorithm 2
========  ==========================  ================================================================

``median``, ``trimmed-mean`` and ``krum`` differ in how updates become one (``robust.py``), not here.

Rules for buffers, the same under every strategy:

- Floating buffers (running means and variances of batch norm) are averaged by image count and
  taken as they are: server momentum, rate and Adam never touch them, since a step that overshoots
  could make a variance negative. The mean of the hospitals' variances is below the variance of
  their pooled images, by the spread between the hospitals' means; that is accepted, as in FedAvg.
- Integer buffers (batch norm's step counters) become the mean by image count, rounded.
- Under FedBN both stay at home with the weights of their layers, and the global model keeps the
  study's first values of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedlens.coordinator.settings import CoordinatorSettings
from fedlens.errors import RoundError, SettingsError
from fedlens.protocol.messages import Array, Parameters

_ADAM_RATE = 0.01
Floats = npt.NDArray[np.float64]
Moments = dict[str, Floats]


class ServerRule(Protocol):
    """What the server does with one array's mean update."""

    @property
    def moments(self) -> Mapping[str, float]:
        """Arrays that the rule carries from round to round, and what they start from."""
        ...

    def step(self, mean: Floats, moments: Moments) -> tuple[Floats, Moments]:
        """What to add to the array, and the moments after; both new or ``mean`` itself."""
        ...


@dataclass(frozen=True)
class Average:
    """FedAvg: the mean update as it is."""

    @property
    def moments(self) -> Mapping[str, float]:
        """None."""
        return {}

    def step(self, mean: Floats, moments: Moments) -> tuple[Floats, Moments]:
        """``mean``."""
        return mean, moments


@dataclass(frozen=True)
class Momentum:
    """FedAvgM: v <- momentum v + mean; step = rate v."""

    rate: float
    momentum: float

    @property
    def moments(self) -> Mapping[str, float]:
        """``velocity``, from 0."""
        return {"velocity": 0.0}

    def step(self, mean: Floats, moments: Moments) -> tuple[Floats, Moments]:
        """One step with momentum."""
        velocity = self.momentum * moments["velocity"] + mean
        return self.rate * velocity, {"velocity": velocity}


@dataclass(frozen=True)
class Adam:
    """FedAdam (Reddi et al. 2021, algorithm 2), without bias correction.

    m <- b1 m + (1 - b1) mean; v <- b2 v + (1 - b2) mean^2; step = rate m / (sqrt(v) + tau), where
    v starts from tau^2, the least that the algorithm allows.
    """

    rate: float
    beta1: float
    beta2: float = 0.99
    tau: float = 1e-3

    @property
    def moments(self) -> Mapping[str, float]:
        """``first`` from 0 and ``second`` from tau squared."""
        return {"first": 0.0, "second": self.tau**2}

    def step(self, mean: Floats, moments: Moments) -> tuple[Floats, Moments]:
        """One Adam step."""
        first = self.beta1 * moments["first"] + (1 - self.beta1) * mean
        second = self.beta2 * moments["second"] + (1 - self.beta2) * mean**2
        return self.rate * first / (np.sqrt(second) + self.tau), {"first": first, "second": second}


@dataclass(frozen=True)
class Strategy:
    """How one study learns together.

    Attributes:
        rule: The server's step.
        buffers: Arrays that the rule leaves alone.
        proximal_mu: FedProx strength at hospitals; 0 for none.
        personal: Arrays that stay at home, sorted.
    """

    rule: ServerRule
    buffers: frozenset[str]
    proximal_mu: float = 0.0
    personal: tuple[str, ...] = ()

    def shared(self, parameters: Parameters) -> Parameters:
        """The arrays that updates hold: all but the personal ones."""
        return {name: array for name, array in parameters.items() if name not in self.personal}

    def start(self, parameters: Parameters) -> Parameters:
        """The rule's moments before the first round, float32, named ``moment/array``."""
        return {
            f"{moment}/{name}": np.full(parameters[name].shape, first, np.float32)
            for moment, first in self.rule.moments.items()
            for name in self._trained(parameters)
        }

    def update(
        self, parameters: Parameters, mean: Parameters, state: Parameters
    ) -> tuple[Parameters, Parameters]:
        """The next global model and the moments to carry; arguments stay as they were.

        Args:
            parameters: The global model, personal arrays included.
            mean: Mean update of floating arrays in float64, and the mean of counters.
            state: From :meth:`start` or the round before.

        Raises:
            RoundError: A weight would not be finite.
        """
        following = dict(parameters)
        carried: Parameters = {}
        trained = self._trained(parameters)
        for name, change in mean.items():
            old = parameters[name]
            if name in trained:
                moments = {
                    moment: state[f"{moment}/{name}"].astype(np.float64) for moment in self.rule.moments
                }
                change, moments = self.rule.step(change, moments)
                carried |= {f"{moment}/{name}": array.astype(np.float32) for moment, array in moments.items()}
            floating = np.issubdtype(old.dtype, np.floating)
            # A 0-d sum is a numpy scalar; asarray makes it an array again.
            new = np.asarray(old + change if floating else change)
            following[name] = _checked(name, new, old.dtype)
        return following, carried

    def _trained(self, parameters: Parameters) -> set[str]:
        """Names of the arrays that the rule steps."""
        return {
            name
            for name, array in self.shared(parameters).items()
            if np.issubdtype(array.dtype, np.floating) and name not in self.buffers
        }


def make_strategy(settings: CoordinatorSettings) -> Strategy:
    """The strategy that the study asks for.

    Raises:
        SettingsError: FedBN for a network without normalisation layers.
    """
    federation = settings.federation
    rate, momentum = federation.server_learning_rate, federation.server_momentum
    buffers = settings.buffer_names
    match federation.strategy:
        case "fedavg" | "median" | "trimmed-mean" | "krum":
            return Strategy(Average(), buffers)
        case "fedprox":
            return Strategy(Average(), buffers, proximal_mu=federation.proximal_mu)
        case "fedavgm":
            return Strategy(Momentum(rate or 1 - momentum, momentum), buffers)
        case "fedadam":
            return Strategy(Adam(rate or _ADAM_RATE, momentum), buffers)
        case "fedbn":
            if not settings.norm_names:
                raise SettingsError(
                    "federation.strategy = 'fedbn', but the network has no normalisation layers.",
                    why="There is nothing to keep at home.",
                    fix="Set federation.strategy = 'fedavg', or choose another model.name.",
                )
            return Strategy(Average(), buffers, personal=tuple(sorted(settings.norm_names)))


def _checked(name: str, array: Array, dtype: npt.DTypeLike) -> Array:
    """The array in ``dtype``, if it fits."""
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    if not np.isfinite(cast).all():
        raise RoundError(
            f"Global weight {name} is no longer finite.",
            why="Every update was; their sum is too large for float32.",
            fix="Lower training.learning_rate or federation.server_learning_rate.",
        )
    return cast
