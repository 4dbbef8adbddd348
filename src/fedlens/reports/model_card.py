"""The model card: what a network is, its training, its tests, and where it fails (Mitchell et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedlens.models.checkpoint import Contract
from fedlens.reports.card_quality import calibration_section, explanation_section
from fedlens.reports.card_tables import class_tables, confusion_chart, part_table, rates_table, split_table
from fedlens.reports.comparison import Comparison
from fedlens.reports.decision import DecisionResults
from fedlens.reports.document import Block, Document, Facts, Folded, Items, Section, Table, Text
from fedlens.reports.explanation_comparison import ExplanationComparison
from fedlens.reports.headline import headline, tiles
from fedlens.reports.known_failures import known_failures
from fedlens.reports.page import flat
from fedlens.reports.paper import ARM_LABELS, AVERAGING_NOTE, METRICS, cell
from fedlens.reports.predictions import Predictions
from fedlens.reports.shares import Share

NO_DEVICE = (
    "Not a medical device",
    "Research software. No authority has cleared this network for diagnosis, triage or treatment, and "
    "nothing below says that it may be used for them.",
)

_TRAINING = (
    ("federation.strategy", "Strategy"),
    ("federation.rounds", "Rounds"),
    ("training.passes", "Passes over the training images"),
    ("federation.batch_size", "Local batch size; 0 takes the next"),
    ("training.batch_size", "Batch size"),
    ("training.optimizer", "Optimiser"),
    ("training.learning_rate", "Peak learning rate"),
    ("training.schedule", "Schedule"),
    ("training.weight_decay", "Weight decay"),
    ("training.class_weights", "Class weights"),
    ("training.sampling", "Sampling"),
    ("model.start", "Starting weights"),
)


@dataclass(frozen=True, eq=False)
class CardInput:
    """All that a card says. Text in it may come from file names.

    Attributes:
        title: The study's name.
        arm: Whose network it is.
        study: The study's settings as plain data, without paths.
        contract: Of the network's checkpoint, that of the first seed.
        weights: How many numbers the network has.
        comparison: Results of every arm.
        predictions: Of this arm on test images, one for each seed.
        explanations: Quality of every arm's explanations; None where nothing was measured.
        stray_by_class: Share of this arm's stray maps by true class.
        decision: What was fitted for advice, held against test images; None where nothing was.
        shares: Images of each hospital, class and split; empty where the manifest has gone.
        audit: Content of ``audit.json``; empty where no audit was made.
        sealing: How updates travelled, in sentences.
        minded: Settings by which its training minded explanations; None where nobody can tell.
        images_digest: Digest over every image's content, class, split and hospital; may be empty.
        exported: File name and SHA-256 of exported files.
        versions: Version of each library, and the machine, by name.
        created: Date and time as text.
    """

    title: str
    arm: str
    study: Mapping[str, Any]
    contract: Contract
    weights: int
    comparison: Comparison
    predictions: tuple[Predictions, ...]
    explanations: ExplanationComparison | None = None
    stray_by_class: Mapping[str, float] = field(default_factory=dict)
    decision: DecisionResults | None = None
    shares: tuple[Share, ...] = ()
    audit: Mapping[str, Any] = field(default_factory=dict)
    sealing: tuple[str, ...] = ()
    minded: Mapping[str, object] | None = field(default_factory=dict)
    images_digest: str = ""
    exported: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""


def model_card(card: CardInput) -> Document:
    """The card as a document; the same input gives the same one."""
    sections = (
        Section("model", "The network", tuple(_model(card))),
        Section("use", "Intended use", tuple(_use(card))),
        Section("data", "Data", tuple(_data(card))),
        Section("training", "Training", tuple(_training(card))),
        Section("results", "Results", tuple(_results(card))),
        calibration_section(card.decision, card.predictions),
        explanation_section(card.explanations, card.arm),
        Section("failures", "Known failures", tuple(_failures(card))),
        Section("limits", "Limits", (Items(tuple(_limits(card))),)),
        Section("provenance", "Provenance", tuple(_provenance(card))),
    )
    return Document(
        kind="Model card",
        title=card.title,
        created=card.created,
        lead=headline(card.comparison, card.arm),
        warning=NO_DEVICE,
        tiles=tiles(card.comparison, card.arm),
        sections=sections,
    )


def _model(card: CardInput) -> Iterator[Block]:
    contract, prepared = card.contract, card.contract.preprocess
    colour = "RGB or grey repeated" if prepared.channels == 3 else "grey"
    yield Facts(
        (
            ("Network", f"{contract.model.name}, {card.weights:,} numbers"),
            ("Trained as", ARM_LABELS.get(card.arm, card.arm)),
            ("Input", f"{prepared.size} x {prepared.size} pixels, 8 bits, {colour}"),
            (
                "Preparation",
                f"resize; normalise: {prepared.normalise}; denoise: {prepared.denoise}; contrast: "
                f"{prepared.contrast}; profile: {prepared.profile}",
            ),
            ("Output", f"one probability for each of {len(contract.classes)} classes, which add up to 1"),
            ("Classes", ", ".join(contract.classes)),
        )
    )


def _use(card: CardInput) -> Iterator[Block]:
    sources = ", ".join(card.comparison.sources)
    yield Text("Meant for:")
    yield Items(
        (
            "Research on federated and explainable image classification, on images of the kind it was "
            f"trained on ({sources}).",
            "Studies, with an ethics committee's approval, of whether it helps a specialist, who decides.",
        )
    )
    yield Text("Not meant for:")
    yield Items(
        (
            "Diagnosis, triage or treatment of patients, with or without a specialist.",
            "Images of another kind, organ or device than those under Data. Every image is put into one of "
            f"{len(card.contract.classes)} classes; none of them means anything else.",
            "A hospital that was not in the training, before validation on that hospital's own patients.",
            "Findings beside the classes: a decision for one class does not rule out anything else.",
        )
    )


def _data(card: CardInput) -> Iterator[Block]:
    comparison = card.comparison
    yield Text(
        f"Tested on {comparison.images:,} images of {comparison.groups:,} patients, lesions or clusters of "
        "copies, none of which has an image in training or validation. None of them crosses hospitals either."
    )
    if card.shares:
        yield split_table(card.shares)
        yield from class_tables(card.shares)
    else:
        yield Text(
            "The study's images are no longer at hand, so counts by hospital and class are missing here."
        )
    findings = [
        f"{finding['severity']}: {finding['title']}. {finding['detail']}"
        for finding in card.audit.get("findings", [])
        if finding["severity"] in ("error", "warning")
    ]
    if findings:
        yield Text("What the audit of the images found:")
        yield Items(tuple(dict.fromkeys(findings)))


def _training(card: CardInput) -> Iterator[Block]:
    settings = dict(flat(card.study))
    rows = tuple((title, settings[name]) for name, title in _TRAINING if name in settings)
    seeds = card.comparison.seeds
    yield Facts((*rows, (f"Seed{'s' if len(seeds) > 1 else ''}", ", ".join(map(str, seeds)))))
    if card.minded is None:
        yield Text(
            "The settings kept with this run are not those that the network was trained with: their digest "
            "is not the one under Provenance. Read the settings here with care."
        )
    elif card.minded:
        said = ", ".join(f"{name} = {value}" for name, value in card.minded.items())
        yield Text(f"Trained with explanations: {said}.")
    if card.sealing:
        yield Text("How updates travelled:")
        yield Items(card.sealing)
    yield Text(
        "Images, labels and names of patients never left a hospital. The weights themselves carry no formal "
        "guarantee of privacy: whoever has them can try to find out who was in the training."
    )


def _results(card: CardInput) -> Iterator[Block]:
    comparison, arm = card.comparison, card.arm
    metrics = {**METRICS, "auroc_macro": "AUROC"}
    arms = [arm, *(name for name in comparison.arms if name != arm)]
    seeds = len(comparison.seeds)
    yield Table(
        "On all test images, percent, with 95 % intervals",
        ("Arm", *metrics.values()),
        tuple(
            (
                f"{ARM_LABELS.get(name, name)}{' (this network)' if name == arm and len(arms) > 1 else ''}",
                *(cell(comparison.summary(name, "pooled", metric)) for metric in metrics),
            )
            for name in arms
        ),
        "Intervals resample patients, lesions or clusters of copies. "
        + (
            f"± is the standard deviation over {seeds} training seeds. "
            if seeds > 1
            else "One training seed. "
        )
        + AVERAGING_NOTE.partition(";")[0]
        + ".",
    )
    for kind, title in (("hospital", "Hospital"), ("source", "Data set")):
        scopes = comparison.scopes(arm, kind)
        if len(scopes) > 1:
            yield part_table(comparison, arm, scopes, title)
    yield rates_table(comparison, arm)
    if arm in comparison.confusions:
        yield confusion_chart(comparison, arm)


def _failures(card: CardInput) -> Iterator[Block]:
    found = known_failures(
        card.comparison,
        card.arm,
        predictions=card.predictions,
        shares=card.shares,
        explanations=card.explanations,
        stray_by_class=card.stray_by_class,
    )
    yield Text(
        "Found on the test images by rule, not picked. What those images do not hold, nobody has looked at."
    )
    yield Items(found or ("No class, hospital or data set stands out on these test images.",))


def _limits(card: CardInput) -> Iterator[str]:
    hospitals = ", ".join(card.comparison.hospitals)
    yield f"These figures say nothing about patients of other hospitals than {hospitals}, scanners or times."
    yield (
        "High accuracy is no proof that a network looks at the disease: classes from different sources can "
        "be told apart by their source."
    )
    yield (
        "A map shows where evidence lies on the coarse grid of the last features, not why it counts, and "
        "does not outline a finding."
    )
    yield "Age, sex, skin type and device were not balanced, and no figure is given by any of them."
    if len(card.comparison.seeds) == 1:
        yield "One training seed: the intervals do not cover chance in training."


def _provenance(card: CardInput) -> Iterator[Block]:
    contract = card.contract
    digests = {
        "Weights, SHA-256": contract.weights_sha256,
        "Architecture, fingerprint": contract.fingerprint,
        "Preparation, digest": contract.preprocess_digest,
        "Study settings, digest": contract.study,
        "Images, splits and shares, digest": card.images_digest,
        "Round": str(contract.round),
        "Written": card.created,
    }
    yield Facts(tuple((name, value) for name, value in digests.items() if value))
    if card.exported:
        yield Folded("Exported files, SHA-256", tuple(card.exported.items()))
    yield Folded("Versions and machine", tuple(card.versions.items()))
    yield Folded("All settings", tuple(flat(card.study)))
