"""A study as the lead hands it to the coordinator: settings, names and first weights. No code, no image."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import ClassVar

from fedlens.coordinator.settings import CoordinatorSettings
from fedlens.errors import SettingsError
from fedlens.protocol.messages import Parameters
from fedlens.settings import validated
from fedlens.study import Study


@dataclass(frozen=True)
class Submission:
    """Lead -> coordinator.

    Attributes:
        settings: The study's settings as JSON, without paths.
        fingerprint: Architecture fingerprint of the network.
        norm_names: Arrays of normalisation layers.
        buffer_names: Arrays that no gradient reaches.
        parameters: The weights to start from.
        features: Of the network's last maps; 0 where no advice is to be fitted.
    """

    kind: ClassVar[str] = "submission"
    settings: str
    fingerprint: str
    norm_names: tuple[str, ...]
    buffer_names: tuple[str, ...]
    parameters: Parameters = field(repr=False)
    features: int = 0

    @property
    def study(self) -> Study:
        """The settings, read; images are wherever hospitals say.

        Raises:
            SettingsError: Of another version, or damaged.
        """
        try:
            content = json.loads(self.settings)
            content["data"]["folder"] = "."
        except (ValueError, KeyError, TypeError) as error:
            raise SettingsError(f"The submitted settings cannot be read: {error}.") from error
        return validated(Study, content, "The submitted study")

    def coordinator_settings(self) -> CoordinatorSettings:
        """The coordinator's part of the study."""
        study = self.study
        return CoordinatorSettings.from_study(
            study,
            fingerprint=self.fingerprint,
            classes=study.data.classes,
            norm_names=self.norm_names,
            buffer_names=self.buffer_names,
            features=self.features,
        )


def portable_settings(study: Study) -> str:
    """A study's settings as JSON, without what means something on one machine only."""
    content = study.model_dump(mode="json", exclude={"output", "compare"})
    del content["data"]["folder"]
    content["model"]["start"] = None
    return json.dumps(content)
