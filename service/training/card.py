"""The model card of an export: what the networks are, learned from and achieve, and what is unknown."""

import math
from typing import Any

#: The card's file, beside the networks.
CARD = "MODEL_CARD.md"

#: Layouts whose data come from SPIDER; whoever passes on the weights must name it.
_SPIDER_LAYOUTS = frozenset({"spider", "spider-nifti"})

SPIDER_CITATION = (
    "van der Graaf JW, van Hooff ML, Buckens CFM, et al. *Lumbar spine segmentation in MR images: a dataset and a "
    "public benchmark.* Scientific Data 2024;11:264, doi:10.1038/s41597-024-03090-w, "
    "[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/)"
)

#: With these words a model that has seen no real image says so, in the registry too.
SIMULATED_ONLY = "simulated lumbar slices"


def uses_spider(metrics: dict[str, Any]) -> bool:
    """Whether real data of SPIDER were among the training data."""
    return bool(metrics["data"]) and bool(_SPIDER_LAYOUTS & set(metrics["data"]["layouts"]))


def training_data(metrics: dict[str, Any]) -> str:
    """One line for the registry."""
    data = metrics["data"]
    if not data:
        return SIMULATED_ONLY
    counts = ", ".join(f"{name} ({n} exams)" for name, n in data["datasets"].items())
    source = "; SPIDER (van der Graaf et al., Sci Data 2024;11:264, CC BY 4.0)" if uses_spider(metrics) else ""
    return f"{SIMULATED_ONLY}; annotated MR: {counts}{source}"


def licence(metrics: dict[str, Any]) -> str:
    """One line for the registry."""
    if not metrics["data"]:
        return "Apache-2.0"
    if set(metrics["data"]["layouts"]) <= _SPIDER_LAYOUTS:
        return "Apache-2.0; trained in part on CC BY 4.0 data, attribution in MODEL_CARD.md"
    return "not stated: trained in part on a site's own data; whoever holds them decides"


def model_card(
    name: str, version: str, metrics: dict[str, Any], *, threshold: float, command: str, megabytes: float
) -> str:
    """The card as Markdown."""
    recipe = metrics["recipe"]
    fold = recipe["fold"]
    members = metrics["members"]
    return "\n".join(
        [
            f"# {name} {version} — model card",
            "",
            "**For research use only.** Not a medical device; not for diagnosis or treatment. Disc names are an",
            "assumption to be confirmed by a person.",
            "",
            "| | |",
            "|---|---|",
            "| Purpose | Intervertebral discs of sagittal lumbar MR |",
            f"| Network | {fold['architecture']}, width {fold['width']}, {len(members)} members, logits averaged |",
            "| Input | One sagittal slice, rows to inferior, columns to posterior, 0.78125 mm pixels; adaptive "
            "histogram equalisation (kernel 32, clip 0.01, 256 bins), zero mean, unit variance |",
            "| Output | Logits of background, disc, vertebral body, sacrum, canal |",
            f"| Files | {megabytes:.1f} MB of ONNX, weights in half precision, arithmetic in single; SHA-256 in "
            "`registry.yaml` |",
            f"| Threshold | {threshold:g} on the disc's softmax probability |",
            f"| Licence | {licence(metrics)} |",
            "",
            "## Training data",
            "",
            *_data_lines(metrics),
            "",
            "## Training",
            "",
            f"`{command}`",
            "",
            *_training_lines(metrics),
            "",
            "## Results",
            "",
            *_result_lines(metrics),
            "",
            "## Limits",
            "",
            *_limit_lines(metrics),
            "",
        ]
    )


def _data_lines(metrics: dict[str, Any]) -> list[str]:
    recipe, data = metrics["recipe"], metrics["data"]
    if not data:
        seeds = ", ".join(str(recipe["phantom_seed"] + one["member"] - 1) for one in metrics["members"])
        return [
            f"Simulated slices alone: a stream of its own for each member (seeds {seeds}). **No real image was seen.**"
        ]
    lines = []
    if recipe["phantoms"]:
        seed = recipe["phantom_seed"]
        lines.append(f"- {recipe['phantoms']} simulated slices of seed {seed} (`draw_training_slice`).")
    lines.append(
        f"- {data['slices']} annotated slices of {data['exams']} exams of {data['subjects']} subjects: "
        + ", ".join(f"{name} ({n} exams)" for name, n in data["datasets"].items())
        + f"; digest of the prepared data {data['digest']}."
    )
    if uses_spider(metrics):
        lines.append(
            f"- Attribution: {SPIDER_CITATION}. Changes made: resampled; posterior elements counted as background; the "
            "sacrum, which is not annotated there, left open except for a block below the lowest disc."
        )
    return lines


def _training_lines(metrics: dict[str, Any]) -> list[str]:
    recipe = metrics["recipe"]
    lines = [f"Profile `{recipe['name']}`."]
    if metrics["data"] and recipe["pretrain"]:
        first = recipe["pretrain"]
        lines.append(
            f"First stage: {first['steps']} steps on simulated slices alone, seed {first['seed']}. Then each member "
            "goes on from its averaged weights, without the subjects of its own fold (`folds.json`):"
        )
    lines += [
        "",
        "| member | steps | seed | learning rate | real share | subjects held out |",
        "|---|---|---|---|---|---|",
    ]
    for one in metrics["members"]:
        plan = one["plan"]
        share = plan["real_share"] if metrics["data"] else 0
        lines.append(
            f"| {one['member']} | {plan['steps']} | {plan['seed']} | {plan['learning_rate']:g} | {share:g} | "
            f"{len(one['held_out'])} |"
        )
    plan = metrics["members"][0]["plan"]
    lines += [
        "",
        f"Loss: soft Dice with squared denominator (disc weight {plan['disc_weight']:g}) + "
        f"{plan['cross_entropy_weight']:g} cross-entropy; weight decay {plan['weight_decay']:g}, gradient clip "
        f"{plan['clip']:g}, weight average {plan['ema']:g}.",
    ]
    return lines


def _result_lines(metrics: dict[str, Any]) -> list[str]:
    lines = []
    pooled = metrics["out_of_fold"]
    if pooled:
        lines += [
            "Real subjects, each seen only by the member that did not learn from it; slices in 2-D, argmax, pooled:",
            "",
            "| class | Dice |",
            "|---|---|",
            *(f"| {name} | {_figure(value)} |" for name, value in pooled["dice"].items()),
            "",
            f"{pooled['discs_found']} of {pooled['discs']} annotated disc areas of at least 40 mm² were found "
            f"({pooled['slices']} slices). Disc Dice by threshold: "
            + ", ".join(f"{at}: {_figure(value)}" for at, value in pooled["disc_dice_at"].items())
            + ".",
            "",
        ]
    frozen = metrics["frozen_phantoms_single_members"]
    lines.append(
        f"Simulated slices never trained on (seed 9001, every contrast, one member at a time): disc Dice "
        f"{_figure(frozen['dice']['disc'])}, {frozen['discs_found']} of {frozen['discs']} areas found."
    )
    lines.append("")
    lines.append("`discnode evaluate` measures whole exams: levels, surfaces, volumes and relaxation times.")
    return lines


def _limit_lines(metrics: dict[str, Any]) -> list[str]:
    lines = [
        "- Numbers of discs are counted from the sacrum: a transitional vertebra, or four or six lumbar vertebrae, "
        "shifts every name.",
        "- Fusion, implants, fractures, tumours, infection and children were not tested.",
        "- The network cannot tell an upside-down picture: orientation is taken from the image's own geometry.",
    ]
    if not metrics["data"]:
        lines.insert(0, "- No real image was seen in training; figures on real images are unknown.")
    if metrics["recipe"]["name"] == "smoke":
        lines.insert(0, "- **A smoke run: it proves that the programs work. These networks segment nothing.**")
    return lines


def _figure(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"
