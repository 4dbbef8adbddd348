"""The study file: TOML in, frozen and validated settings out.

Every key has a default except ``data.folder``; an unknown key is refused with the nearest name.
The defaults are the paper's (sections 3.2 and 5): 224 px, batch 32, Adam 0.001, cross entropy,
50 image passes, four hospitals with the paper's shares.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedlens.decision.settings import DecisionSettings
from fedlens.errors import SettingsError
from fedlens.settings import Settings, load_settings

Unit = Annotated[float, Field(ge=0.0, le=1.0)]
PAPER_SHARES = (5000, 6000, 6500, 5401)
ROBUST_STRATEGIES = ("median", "trimmed-mean", "krum")
SMALLEST_FIELD = 32
"""Side of the smallest image, pixels, in which a body or lesion field can be found."""

LEAST_SEALED = 3
"""Fewest hospitals whose sum hides what each of them added."""


class DataSettings(Settings):
    """Which images, and how they are split.

    Attributes:
        folder: Study folder made by ``fedlens data import``; relative to the study file.
        relabel: New label for an old one, e.g. ``glioma = "tumor"``.
        classes: Label order of the network's outputs; all labels, sorted, when empty.
        validation: Fraction of groups kept for choosing settings.
        test: Fraction of groups kept for the final figures.
        split_seed: Seed of the split; not the training seed, so several seeds share one split.
        limit: Use at most this many images, drawn by group and stratified; 0 for all.
    """

    folder: Path
    relabel: dict[str, str] = Field(default={})
    classes: tuple[str, ...] = ()
    validation: Unit = 0.1
    test: Unit = 0.2
    split_seed: int = Field(default=0, ge=0)
    limit: int = Field(default=0, ge=0)


class HospitalSettings(Settings):
    """How images are shared out over hospitals.

    Attributes:
        by: ``paper`` (the paper's unequal counts, scaled), ``equal``, ``modality``, ``dirichlet``
            (label skew), ``site`` (the manifest's site column) or ``manifest`` (its hospital column).
        names: Hospital names; A, B, C, D by default. With ``site`` and ``manifest`` names come
            from the data.
        shares: Relative sizes for ``paper``.
        alpha: Dirichlet concentration; smaller is more skewed.
        seed: Seed of the sharing.
    """

    by: Literal["paper", "equal", "modality", "dirichlet", "site", "manifest"] = "paper"
    names: tuple[str, ...] = ("A", "B", "C", "D")
    shares: tuple[float, ...] = PAPER_SHARES
    alpha: float = Field(default=0.3, gt=0)
    seed: int = Field(default=0, ge=0)


class PreprocessSettings(Settings):
    """Deterministic preparation of one image (paper, section 3.2).

    Attributes:
        size: Side of the square network input, pixels.
        channels: 3, or 1 for grey-only studies.
        denoise: ``median`` (3x3), ``bilateral``, ``nlm`` (non-local means) or ``none``.
        contrast: ``clahe`` or ``none``.
        normalise: ``percentile`` stretches the 0.5..99.5 percentile to 0..255; ``none`` keeps values.
        profile: ``auto`` takes each image's own modality's profile; or one modality for all.
    """

    size: int = Field(default=224, ge=16, le=2048)
    channels: Literal[1, 3] = 3
    denoise: Literal["median", "bilateral", "nlm", "none"] = "median"
    contrast: Literal["clahe", "none"] = "clahe"
    normalise: Literal["percentile", "none"] = "percentile"
    profile: Literal["auto", "xray", "mri", "dermoscopy", "ct", "other"] = "auto"


class AugmentSettings(Settings):
    """Training-only augmentation (paper, section 3.2), composed into one warp per image.

    Attributes:
        flip: Probability of a horizontal flip.
        rotation: Largest angle either way, degrees.
        free_rotation: Dermoscopy images have no upright: rotate them by any angle.
        zoom: Largest relative magnification or reduction.
        brightness: Largest relative change of gain and, of full scale, of offset.
        crop: Largest side fraction cut off at random.
    """

    flip: Unit = 0.5
    rotation: float = Field(default=15.0, ge=0, le=180)
    free_rotation: bool = True
    zoom: Unit = 0.12
    brightness: Unit = 0.15
    crop: Unit = 0.1


class ModelSettings(Settings):
    """Which network.

    Attributes:
        name: ``efdl-cnn`` (the paper's), ``efdl-cnn-fine`` (the same with maps twice as fine),
            ``densenet121``, ``resnet18``, ``efficientnet-b0``, ``vit``.
        start: Starting weights: a checkpoint folder or safetensors file; relative to the study file.
        dropout: Before the last layer of ``efdl-cnn``.
    """

    name: str = "efdl-cnn"
    start: Path | None = None
    dropout: Unit = 0.3


class TrainingSettings(Settings):
    """How a network learns, in every arm alike (paper, section 5).

    Attributes:
        passes: Passes over the training images in the whole study ("epochs" in the paper).
        batch_size: Images a step, centralised and local-only.
        optimizer: ``adam`` (the paper's), or ``muon``, which steps matrices along orthogonal directions and
            learns more from few passes.
        learning_rate: Peak learning rate.
        schedule: Learning rate over the study: ``constant`` or ``cosine`` to zero.
        warmup: Fraction of the study in which the rate rises linearly.
        weight_decay: Decoupled weight decay (AdamW).
        label_smoothing: Of the cross entropy.
        class_weights: ``none``, or ``balanced`` by inverse class frequency.
        sampling: ``shuffle``, or ``balanced`` draws classes evenly.
        patience: Stop after this many evaluations without a better validation loss; 0 for never.
        precision: ``auto`` measures nothing and follows the network's known best; or force one.
        device: ``auto`` takes CUDA, then MPS, then CPU.
    """

    passes: float = Field(default=50.0, gt=0)
    batch_size: int = Field(default=32, ge=2)
    optimizer: Literal["adam", "muon"] = "adam"
    learning_rate: float = Field(default=0.001, gt=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: Unit = 0.0
    weight_decay: float = Field(default=0.0, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = "none"
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    patience: int = Field(default=0, ge=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"


class FederationSettings(Settings):
    """How hospitals learn together.

    Attributes:
        rounds: Rounds; each hospital passes its images ``training.passes / rounds`` times a round.
        strategy: ``fedavg``, ``fedprox``, ``fedbn``, ``fedavgm`` or ``fedadam``; in unsealed studies also
            ``median``, ``trimmed-mean`` or ``krum``, which tolerate some poisoned updates.
        batch_size: Local images a step; 0 takes ``training.batch_size``.
        learning_rate: Local peak rate; 0 takes ``training.learning_rate``.
        optimizer_state: ``keep`` it at home between rounds, or ``reset`` it every round.
        proximal_mu: FedProx strength.
        server_learning_rate: FedAvgM and FedAdam step size; 0 takes 1 - server_momentum for FedAvgM,
            whose steps then add up to the plain mean, and 0.01 for FedAdam.
        server_momentum: FedAvgM momentum; FedAdam beta 1.
        participation: Fraction of hospitals drawn for each round.
        minimum_hospitals: Fewer than this many updates end the study.
        evaluate_every: Rounds between evaluations on validation images; the last is always evaluated.
    """

    rounds: int = Field(default=50, ge=1)
    strategy: Literal[
        "fedavg", "fedprox", "fedbn", "fedavgm", "fedadam", "median", "trimmed-mean", "krum"
    ] = "fedavg"
    batch_size: int = Field(default=0, ge=0)
    learning_rate: float = Field(default=0.0, ge=0)
    optimizer_state: Literal["keep", "reset"] = "keep"
    proximal_mu: float = Field(default=0.01, ge=0)
    server_learning_rate: float = Field(default=0.0, ge=0)
    server_momentum: float = Field(default=0.9, ge=0, lt=1)
    participation: float = Field(default=1.0, gt=0, le=1)
    minimum_hospitals: int = Field(default=2, ge=1)
    evaluate_every: int = Field(default=1, ge=1)


class SealingSettings(Settings):
    """How updates are sealed, so that only their sum over hospitals can be read.

    Attributes:
        mode: ``auto`` seals every study of three hospitals or more; ``on`` refuses a smaller one; ``off``
            sends updates in the clear, which history and report then say.
        value_bits: Bits of one value of an update: 8, 12, 16, 20, 24 or 32.
        threshold: Fewest hospitals whose sum is opened; over half of the roster. 0 takes the least that
            stands a lying coordinator with one hospital's help: 3 of 4, 4 of 5, 6 of 10.
        norm_bound: Largest change of the trained weights (L2 norm) that a hospital sends; 0 takes twenty
            times the largest mean change so far.
    """

    mode: Literal["auto", "on", "off"] = "auto"
    value_bits: Literal[8, 12, 16, 20, 24, 32] = 16
    threshold: int = Field(default=0, ge=0)
    norm_bound: float = Field(default=0.0, ge=0)


class ExplanationSettings(Settings):
    """How saliency maps are made and measured in every hospital, and how much training minds them.

    The losses act in the arms ``explainable`` and ``explainable-...`` of a comparison, and in ``fedlens run``
    and ``fedlens submit``; other arms train without them.

    Attributes:
        method: How the maps of rounds and reports are made; ``fedlens explain --help`` names what there is.
        every: Rounds between measurements of maps on validation images; 0 measures after the last round only.
        measures: ``quick`` takes localisation, straying and mirrored maps; ``full`` adds faithfulness and
            robustness, some 200 passes an image; ``none`` measures nothing.
        outline_loss: Weight of the loss on heat outside an expert's outline, where an image has one.
        field_loss: Weight of the loss on heat outside the body or skin.
        consistency_loss: Weight of the loss between the map of a mirrored image and the mirrored map.
        outlines_at: Hospitals whose outlines the loss uses; all that have any where empty.
        weighting: How a hospital's update counts in the average: by its ``images``, or less where its own
            maps stray from the body (``explanations``).
    """

    method: str = "grad-cam"
    every: int = Field(default=0, ge=0)
    measures: Literal["none", "quick", "full"] = "quick"
    outline_loss: float = Field(default=0.0, ge=0)
    field_loss: float = Field(default=0.0, ge=0)
    consistency_loss: float = Field(default=0.0, ge=0)
    outlines_at: tuple[str, ...] = ()
    weighting: Literal["images", "explanations"] = "images"


class NetworkSettings(Settings):
    """How patient the coordinator is where hospitals are machines apart; plays no part on one machine.

    Attributes:
        deadline: Seconds that a hospital has for one step of a round, training included; whoever is slower
            is missing from that round.
        grace: Seconds for which a hospital may be out of reach within a step before it counts as missing.
        wait: Seconds to wait for enough hospitals before the study stops.
    """

    deadline: float = Field(default=3600.0, gt=0)
    grace: float = Field(default=60.0, ge=0)
    wait: float = Field(default=600.0, ge=0)


class CompareSettings(Settings):
    """What ``fedlens compare`` runs.

    Attributes:
        arms: Arms to train. ``explainable`` is ``federated`` with what ``explanation`` switches on, or with
            what is recommended where it switches on nothing; ``explainable-...`` tries one idea alone.
        seeds: One whole comparison for each.
        bootstrap: Resamples of the 95 % intervals.
    """

    arms: tuple[
        Literal[
            "local",
            "central",
            "federated",
            "explainable",
            "explainable-outline",
            "explainable-field",
            "explainable-consistency",
            "explainable-weighting",
        ],
        ...,
    ] = ("local", "central", "federated", "explainable")
    seeds: tuple[int, ...] = (0,)
    bootstrap: int = Field(default=1000, ge=100)


class Study(Settings):
    """One study: what is trained on which images, where and how.

    Attributes:
        name: Letters, digits, ``-`` and ``_``.
        seed: Root of all randomness in training.
        output: Run folder; ``runs/<name>`` beside the study file when empty.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    seed: int = Field(default=0, ge=0)
    output: Path | None = None
    data: DataSettings
    hospitals: HospitalSettings = HospitalSettings()
    preprocess: PreprocessSettings = PreprocessSettings()
    augment: AugmentSettings = AugmentSettings()
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    federation: FederationSettings = FederationSettings()
    sealing: SealingSettings = SealingSettings()
    explanation: ExplanationSettings = ExplanationSettings()
    decision: DecisionSettings = DecisionSettings()
    network: NetworkSettings = NetworkSettings()
    compare: CompareSettings = CompareSettings()

    @model_validator(mode="after")
    def _splits_leave_something(self) -> Study:
        if self.data.validation + self.data.test >= 1:
            raise ValueError("data.validation and data.test leave no training images")
        return self

    @model_validator(mode="after")
    def _sealing_suits_the_strategy(self) -> Study:
        strategy = self.federation.strategy
        if strategy in ROBUST_STRATEGIES and self.sealing.mode != "off":
            raise ValueError(
                f"federation.strategy = {strategy!r} compares single updates, which sealing hides; set "
                "sealing.mode = 'off' to compare them in the clear, or choose a strategy that needs sums only"
            )
        return self

    @model_validator(mode="after")
    def _fields_can_be_found(self) -> Study:
        explanation = self.explanation
        needs = explanation.field_loss > 0 or explanation.weighting == "explanations"
        if needs and self.preprocess.size < SMALLEST_FIELD:
            raise ValueError(
                f"explanation.field_loss and weighting = 'explanations' need a preprocess.size of "
                f"{SMALLEST_FIELD} or more, to find the body in an image"
            )
        return self

    def sealed(self, hospitals: int) -> bool:
        """Whether updates are sealed in a federation of so many hospitals.

        Raises:
            SettingsError: Sealing is demanded of fewer than three.
        """
        if self.sealing.mode == "on" and hospitals < LEAST_SEALED:
            raise SettingsError(
                f"sealing.mode = 'on' with {hospitals} hospitals.",
                why="In a sum of two, each knows the other's update: it need only take off its own.",
                fix=f"Bring {LEAST_SEALED} hospitals or more, or set sealing.mode = 'off'.",
            )
        return self.sealing.mode != "off" and hospitals >= LEAST_SEALED

    def named_classes(self) -> tuple[str, ...]:
        """The classes, for hospitals that are machines apart.

        Raises:
            SettingsError: ``data.classes`` is empty.
        """
        if not self.data.classes:
            raise SettingsError(
                "data.classes is empty.",
                why="Hospitals apart from each other cannot agree on classes by looking.",
                fix="Name them in data.classes.",
            )
        return self.data.classes

    def digest(self) -> str:
        """SHA-256 over every setting that shapes the weights; paths, patience and the name are left out."""
        content = self.model_dump(mode="json", exclude={"name", "output", "decision", "network", "compare"})
        content["data"].pop("folder")
        content["model"].pop("start")
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load_study(path: Path) -> Study:
    """Read a study file; relative paths in it start from its folder.

    Raises:
        SettingsError: Missing file, broken TOML, unknown key (with the nearest known one), or a
            value out of range; names the file, key and value.
    """
    study = load_settings(Study, path, "study file", fix="Make one with: fedlens study new FILE")
    base = path.resolve().parent
    output = base / (study.output or Path("runs") / study.name)
    start = base / study.model.start if study.model.start else None
    return study.model_copy(
        update={
            "output": output,
            "data": study.data.model_copy(update={"folder": base / study.data.folder}),
            "model": study.model.model_copy(update={"start": start}),
        }
    )
