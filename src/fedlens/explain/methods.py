"""Every explanation method by name: what it suits, what it costs and where it comes from.

Nothing is imported to look a method up; torch and Captum come with its first use.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from fedlens.errors import ExplanationError, SettingsError

if TYPE_CHECKING:
    from torch import Tensor

    from fedlens.explain.batch import MapBatch
    from fedlens.models.network import Network

Suits = Literal["any", "convolutional", "rectified", "tokens"]

RECOMMENDED = "grad-cam"

_SUITS_IN_WORDS: Mapping[Suits, str] = {
    "any": "any network",
    "convolutional": "convolutional networks",
    "rectified": "networks whose activations are all rectifiers",
    "tokens": "networks over tokens",
}


@dataclass(frozen=True)
class Method:
    """One way to explain.

    Attributes:
        name: As users type it.
        suits: Which networks it is made for.
        cost: In words, what a map costs; a pass is one image's forward pass without gradients.
        source: Who published it.
        home: Module below ``fedlens.explain``, and function.
        place: What the map is made of; ``{layer}`` and ``{early}`` are the network's own words.
        speaks_for_class: Whether the map depends on the explained class.
        settings: What else determines the map.
    """

    name: str
    suits: Suits
    cost: str
    source: str
    home: str
    place: str = "{layer}"
    speaks_for_class: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, network: Network, inputs: Tensor, targets: Tensor | None = None) -> MapBatch:
        """Explain a batch, as ``grad_cam`` does.

        Raises:
            ExplanationError: The method does not suit the network; or as ``grad_cam``.
        """
        self.check(network)
        module, function = self.home.split(":")
        explain = getattr(importlib.import_module(f"fedlens.explain.{module}"), function)
        result: MapBatch = explain(network, inputs, targets)
        return result

    def suitable(self, network: Network) -> bool:
        """Whether the method is made for such a network."""
        return network.rectified if self.suits == "rectified" else self.suits in ("any", network.family)

    def check(self, network: Network) -> None:
        """Refuse a network that the method does not suit.

        Raises:
            ExplanationError: With the names of the methods that do.
        """
        if not self.suitable(network):
            raise ExplanationError(
                f"Method {self.name!r} does not suit {network.name}.",
                why=f"It is made for {_SUITS_IN_WORDS[self.suits]}.",
                fix=f"Choose one of {', '.join(method_names(network))}.",
            )

    def layer(self, network: Network) -> str:
        """In words, what the map of this network is made of."""
        return self.place.format(layer=network.layer, early=getattr(network, "early_layer", ""))


_ONE_PASS = "one pass and the head's backward pass"

METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method(
            "grad-cam",
            "any",
            _ONE_PASS,
            "Selvaraju et al., Grad-CAM, ICCV 2017",
            "grad_cam:grad_cam",
        ),
        Method(
            "grad-cam++",
            "convolutional",
            _ONE_PASS,
            "Chattopadhay et al., Grad-CAM++, WACV 2018",
            "grad_cam:grad_cam_plus_plus",
        ),
        Method(
            "hires-cam",
            "convolutional",
            _ONE_PASS,
            "Draelos and Carin, HiResCAM, arXiv 2011.08891, 2020",
            "grad_cam:hires_cam",
        ),
        Method(
            "layer-cam",
            "convolutional",
            _ONE_PASS,
            "Jiang et al., LayerCAM, IEEE TIP 30, 2021",
            "grad_cam:layer_cam",
        ),
        Method(
            "layer-cam-two-stages",
            "convolutional",
            "one pass and the last stage's backward pass",
            "Jiang et al., LayerCAM, IEEE TIP 30, 2021",
            "grad_cam:layer_cam_two_stages",
            place="{early}, and {layer}",
        ),
        Method(
            "eigen-cam",
            "convolutional",
            "one pass and an eigenvector of as many numbers as places",
            "Muhammad and Yeasin, Eigen-CAM, IJCNN 2020",
            "gradient_free:eigen_cam",
            speaks_for_class=False,
        ),
        Method(
            "score-cam",
            "convolutional",
            "one pass for each map of the last layer, and one",
            "Wang et al., Score-CAM, CVPR Workshops 2020",
            "gradient_free:score_cam",
        ),
        Method(
            "attention-rollout",
            "tokens",
            "one pass",
            "Abnar and Zuidema, Quantifying attention flow in transformers, ACL 2020",
            "gradient_free:attention_rollout",
            place="attention of every block",
            speaks_for_class=False,
        ),
        Method(
            "integrated-gradients",
            "any",
            "32 passes and backward passes",
            "Sundararajan et al., Axiomatic attribution, ICML 2017; by Captum",
            "through_captum:integrated_gradients",
            place="input pixels",
            settings={"steps": "32", "baseline": "mid grey", "quadrature": "Gauss-Legendre"},
        ),
        Method(
            "occlusion",
            "any",
            "170 passes or a few more",
            "Zeiler and Fergus, Visualizing convolutional networks, ECCV 2014; by Captum",
            "through_captum:occlusion",
            place="input pixels",
            settings={"window": "1/7 of the side", "step": "half a window", "baseline": "mid grey"},
        ),
        Method(
            "guided-grad-cam",
            "rectified",
            "two passes and a backward pass",
            "Selvaraju et al., Grad-CAM, ICCV 2017; guided backpropagation by Captum",
            "through_captum:guided_grad_cam",
            place="input pixels, weighed by {layer}",
        ),
    )
}


def method_names(network: Network | None = None) -> tuple[str, ...]:
    """Names of all methods, or of those that suit a network."""
    return tuple(name for name, method in METHODS.items() if network is None or method.suitable(network))


def find_method(name: str) -> Method:
    """A method by name.

    Raises:
        SettingsError: Unknown name, with the nearest known one.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1, cutoff=0.4)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise SettingsError(
            f"No explanation method is named {name!r}.",
            fix=f"{hint}Choose one of {', '.join(METHODS)}.",
        )
    return METHODS[name]
