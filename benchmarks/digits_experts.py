# SPDX-License-Identifier: Apache-2.0
"""What coarser experts cost a trained model, and save: accuracy, memory and bytes read on DigitScenes' test images.

`python benchmarks/digits_experts.py [--images N]` packs the int8 experts of models/digits_int8.safetensors in every
format, and the ternary ones of models/digits.safetensors (trained alike), runs the test images through the streaming
runtime and scores its outputs. What is fitted, and the hot set, come from training images.

Memory is what the runtime holds for experts: its arena and the rescalings. Every row runs under the memory that the
target leaves (47 % of what int8 experts take, all resident): those outputs are scored, and one image of them is
compared with the reference. Budgets of 25, 50 and 100 % of the int8 experts' bytes run fewer images, whose outputs must
be the same. Every way of reading is scored on validation images too, whose digits are in no other split. Writes
benchmarks/results/digits_experts.json and a table of docs/edge-results.md. Status 1 when no coarser row is within a
point of int8 experts, in mIoU and in relative depth error, with 53 % less memory.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from common import RESULTS
from common import store as store_results
from tables import markdown, replace_tables

from codesign.assets import asset
from codesign.experts.file.store import Store
from codesign.experts.pack.fit import FormatChoice
from codesign.experts.pack.pack import pack_graph
from codesign.experts.pack.sources import CALIBRATION_SCENES, SCENES, read_calibration, read_source
from codesign.experts.run.graph import GraphRun, run_graph
from codesign.experts.run.options import IMAGES_PIN, RuntimeOptions
from codesign.experts.run.routing import RoutingTrace
from codesign.reference.functions import Ints
from codesign.report.measure import to_map
from codesign.spec import Graph
from codesign.spec.moe import ExpertFormat, WidthPolicy
from codesign.spec.patches import Pixels
from codesign.train import metrics
from codesign.train.digitscenes import NUM_CLASSES, Scenes, Split, scenes

ROOT = RESULTS.parent.parent
DOCUMENT = ROOT / "docs" / "edge-results.md"
FOLDER = ROOT / "build" / "benchmarks"
INT8_TWIN, TERNARY_TWIN = "digits_int8.safetensors", "digits.safetensors"
BUDGETS = (0.25, 0.5, 1.0)
SAVED = 0.53
POINTS = 1.0
PROBED = 32
"""Images that the budgets run."""
HOT_SCENES = 32
"""Training images whose routing chooses the hot set."""
ONE = 1 << 15
NEVER = ONE + 1
"""A threshold that no gate reaches."""


@dataclass(frozen=True)
class Reading:
    """What is read of an expert: one width (None with no policy: all), or the width that a token's gates ask for."""

    name: str
    width: int | None = None
    policy: WidthPolicy | None = None


@dataclass(frozen=True)
class Packing:
    """A twin's experts in a format, and how they are read."""

    fitted: str
    choice: FormatChoice
    readings: tuple[Reading, ...]
    calibrated: bool = False
    twin: str = INT8_TWIN


@dataclass(frozen=True)
class Held:
    """A run under a budget. `memory_bytes`: arena and rescalings; `saved`: of int8 experts, all resident."""

    budget: int
    arena_bytes: int
    memory_bytes: int
    saved: float
    read_bytes_per_image: float
    hit_rate: float


@dataclass(frozen=True)
class Accuracy:
    """Scores, and what they lose to int8 experts, in points."""

    miou: float
    depth_rel: float
    miou_lost: float = 0.0
    depth_rel_added: float = 0.0

    @property
    def within(self) -> bool:
        """Whether both lose at most a point."""
        return self.miou_lost <= POINTS and self.depth_rel_added <= POINTS

    def against(self, base: Accuracy) -> Accuracy:
        """With what is lost to those."""
        lost, added = 100 * (base.miou - self.miou), 100 * (self.depth_rel - base.depth_rel)
        return replace(self, miou_lost=lost, depth_rel_added=added)


@dataclass(frozen=True)
class Row:
    """One way to hold experts. `weight_bytes`: of the levels that are ever read, without the padding to pages;
    `resident_saved`: what all of them and the rescalings save if they stay in memory, again without padding.
    """

    format: str
    fitted: str
    reads: str
    coarser: bool
    bits: float
    weight_bytes: int
    constant_bytes: int
    resident_saved: float
    test: Accuracy
    validation: Accuracy
    at_target: Held
    at_budgets: tuple[Held, ...]

    @property
    def reached(self) -> bool:
        """Whether it is coarser than int8, and meets the target."""
        return self.coarser and self.test.within and self.at_target.saved >= SAVED


def widths(*found: int) -> tuple[Reading, ...]:
    """Readings of fixed widths."""
    return tuple(Reading(f"{width}", width) for width in found)


def by_gate(name: str, high: int, low: int) -> Reading:
    """A reading by the gates' policy."""
    return Reading(name, policy=WidthPolicy(high, low))


WHOLE = (Reading("all"),)
NESTED = (
    *widths(8, 4, 2),
    by_gate("8 from 1/2, 4 from 1/4", ONE // 2, ONE // 4),
    by_gate("8 if largest, 4 from 1/2", ONE, ONE // 2),
    by_gate("4 from 1/4", NEVER, ONE // 4),
    by_gate("4 from 1/2", NEVER, ONE // 2),
    by_gate("4 if largest", NEVER, ONE),
)
RESIDUAL = (
    *widths(4, 3, 2),
    by_gate("4 if largest, 3 from 1/2", ONE, ONE // 2),
    by_gate("3 from 1/2", NEVER, ONE // 2),
    by_gate("3 if largest", NEVER, ONE),
)
INT8 = Packing("", FormatChoice(ExpertFormat.INT8), WHOLE)
PACKINGS = (
    INT8,
    Packing("the model's rescalings", FormatChoice(ExpertFormat.NESTED), NESTED),
    Packing("rescalings", FormatChoice(ExpertFormat.NESTED), NESTED[1:], calibrated=True),
    Packing("weight by weight", FormatChoice(ExpertFormat.RESIDUAL, compensate=False), RESIDUAL[:3]),
    Packing("rescalings", FormatChoice(ExpertFormat.RESIDUAL, compensate=False), RESIDUAL[:3], calibrated=True),
    Packing("rescalings, compensated", FormatChoice(ExpertFormat.RESIDUAL), RESIDUAL, calibrated=True),
    Packing("rounded after training", FormatChoice(ExpertFormat.TERNARY, ternarize=True), WHOLE, calibrated=True),
    Packing("trained", FormatChoice(ExpertFormat.TERNARY), WHOLE, twin=TERNARY_TWIN),
    Packing("trained", FormatChoice(ExpertFormat.TRITS), WHOLE, twin=TERNARY_TWIN),
)


def constant_bytes(store: Store) -> int:
    """Bytes of the rescalings, which stay in memory."""
    return sum(entry.constants.bytes for entry in store.index.layers)


def level_bytes(store: Store, levels: int) -> int:
    """Bytes of the first levels of all experts, as they are, without padding."""
    return sum(block.bytes for entry in store.index.layers for level in entry.blocks[:levels] for block in level)


def scored(graph: Graph, outputs: Sequence[tuple[Ints, ...]], truth: Scenes) -> Accuracy:
    """Outputs of all tasks, image by image, against the truth."""
    maps = {
        task: to_map(graph, graph.output_of(task), np.stack([made[at] for made in outputs]))
        for at, task in enumerate(graph.tasks)
    }
    classes, depth = maps["semseg"].astype(np.uint8), maps["depth"].astype(np.float32)
    found = metrics.scores(truth.semseg, classes, truth.depth, depth, NUM_CLASSES)
    return Accuracy(found.miou, found.depth_rel)


@dataclass(frozen=True)
class Bench:
    """What all rows share. `whole`: bytes that int8 experts take, all resident; `experts`: without their rescalings."""

    graphs: dict[str, Graph]
    calibration: Pixels
    test: Scenes
    validation: Scenes
    folder: Path
    whole: int
    experts: int

    def rows(self, number: int, packing: Packing) -> Iterator[Row]:
        """Pack, and run every reading."""
        path = self.folder / f"{number}.experts"
        pack_graph(self.graphs[packing.twin], packing.choice, path, self.calibration if packing.calibrated else None)
        store = Store.open(path)
        for reading in packing.readings:
            yield self._row(packing, store, reading)

    def _row(self, packing: Packing, store: Store, reading: Reading) -> Row:
        graph, constants = self.graphs[packing.twin], constant_bytes(store)
        policy = reading.policy or WidthPolicy()
        base = RuntimeOptions(store.expert_bytes, pin=IMAGES_PIN, policy=policy, width=reading.width)
        hot = run_graph(graph, store, self.calibration[:HOT_SCENES], base).trace
        target = int(self.whole * (1 - SAVED)) - constants
        run = run_graph(graph, store, self.test.images, replace(base, budget=target), hot, check=1)
        weights = level_bytes(store, _levels(store, reading))
        return Row(
            format=store.kind.value,
            fitted=packing.fitted,
            reads=reading.name,
            coarser=packing.choice.kind is not ExpertFormat.INT8,
            bits=run.result.metrics.bits_per_weight,
            weight_bytes=weights,
            constant_bytes=constants,
            resident_saved=1 - (weights + constants) / self.whole,
            test=scored(graph, run.outputs, self.test),
            validation=self._validated(graph, store, base),
            at_target=self._held(target, run, constants),
            at_budgets=tuple(self._probe(graph, store, base, hot, share, run) for share in BUDGETS),
        )

    def _validated(self, graph: Graph, store: Store, options: RuntimeOptions) -> Accuracy:
        """Accuracy on validation images, in parts: the metrics of a long run, which nobody reads here, take long."""
        images = self.validation.images
        parts = (images[at : at + PROBED] for at in range(0, len(images), PROBED))
        outputs = [made for part in parts for made in run_graph(graph, store, part, options).outputs]
        return scored(graph, outputs, self.validation)

    def _probe(
        self, graph: Graph, store: Store, base: RuntimeOptions, hot: RoutingTrace, share: float, run: GraphRun
    ) -> Held:
        """Fewer images under another budget: the outputs must be those of the run."""
        budget = int(self.experts * share)
        probe = run_graph(graph, store, self.test.images[:PROBED], replace(base, budget=budget), hot)
        found, wanted = _joined(probe), _joined(run)
        if not np.array_equal(found, wanted[: found.size]):
            raise SystemExit(f"{store.kind.value}: a budget of {share:.0%} changes the outputs")
        return self._held(budget, probe, constant_bytes(store))

    def _held(self, budget: int, run: GraphRun, constants: int) -> Held:
        found = run.result
        memory, read = found.arena_bytes + constants, found.metrics.read_bytes / len(run.outputs)
        return Held(budget, found.arena_bytes, memory, 1 - memory / self.whole, read, found.metrics.byte_hit_rate)


def _joined(run: GraphRun) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """All outputs, image after image."""
    return np.concatenate([tensor.ravel() for made in run.outputs for tensor in made])


def _levels(store: Store, reading: Reading) -> int:
    """How many levels a reading reads at most."""
    most = len(store.kind.levels)
    if reading.width is not None:
        return store.kind.level_count(reading.width)
    return most - 1 if reading.policy is not None and reading.policy.high > ONE else most


def line(row: Row) -> str:
    """One row of the printed table."""
    reads = " ".join(f"{held.read_bytes_per_image / 1e3:4.0f}" for held in (*row.at_budgets, row.at_target))
    scores = "  ".join(
        f"{one.miou:6.2%} ({0.0 - one.miou_lost:+.2f}) {one.depth_rel:5.2%} ({one.depth_rel_added:+.2f})"
        for one in (row.test, row.validation)
    )
    verdict = "within" if row.test.within else "BEYOND"
    return (
        f"{row.format:9}{row.fitted:24}{row.reads:26}{row.bits:5.2f} bits  {scores} {verdict}"
        f"  kB {row.weight_bytes / 1e3:5.1f} + {row.constant_bytes / 1e3:4.1f}"
        f"  resident {0.0 - row.resident_saved:+4.0%}  read {reads}  at {-row.at_target.saved:+.1%}"
    )


def table(rows: list[Row]) -> str:
    """Markdown for docs/edge-results.md."""
    heads = [
        "format", "fitted", "bits read", "mean", "mIoU, %", "lost", "depth error, %", "added", "within 1 point",
        "validation: lost", "added", "resident", *(f"kB at {share:.0%}" for share in BUDGETS), "kB at target",
    ]  # fmt: skip
    lines = []
    for row in rows:
        reads = (f"{held.read_bytes_per_image / 1e3:.0f}" for held in (*row.at_budgets, row.at_target))
        test, other = row.test, row.validation
        lines.append([
            row.format, row.fitted, row.reads, f"{row.bits:.2f}", f"{100 * test.miou:.2f}", f"{test.miou_lost:.2f}",
            f"{100 * test.depth_rel:.2f}", f"{test.depth_rel_added:.2f}", "yes" if test.within else "no",
            f"{other.miou_lost:.2f}", f"{other.depth_rel_added:.2f}", f"{0.0 - row.resident_saved:+.0%}", *reads,
        ])  # fmt: skip
    return markdown(heads, lines, left=3)


def measured(images: int) -> tuple[Bench, list[Row]]:
    """All rows, the baseline first."""
    graphs = {twin: read_source(asset("models") / twin, 0, None) for twin in (INT8_TWIN, TERNARY_TWIN)}
    calibration = read_calibration(SCENES, graphs[INT8_TWIN].image)
    splits = scenes(Split.TEST, images), scenes(Split.VALIDATION, images)
    rows: list[Row] = []
    with TemporaryDirectory(dir=made_folder()) as name:
        folder = Path(name)
        pack_graph(graphs[INT8_TWIN], INT8.choice, folder / "all.experts")
        resident = Store.open(folder / "all.experts")
        whole = resident.expert_bytes + constant_bytes(resident)
        bench = Bench(graphs, calibration, *splits, folder, whole, resident.expert_bytes)
        for number, packing in enumerate(PACKINGS):
            for row in bench.rows(number, packing):
                first = rows[0] if rows else row
                test, other = row.test.against(first.test), row.validation.against(first.validation)
                rows.append(replace(row, test=test, validation=other))
                print(line(rows[-1]), flush=True)
    return bench, rows


def made_folder() -> Path:
    """A folder on the checkout's disk: direct reads do not work in every /tmp."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    return FOLDER


def main() -> int:
    """Run, print, store and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256, help="test images (default and most: 256)")
    images = parser.parse_args().images
    if not PROBED <= images <= 256:
        parser.error(f"--images must be in {PROBED}..256, not {images}")
    bench, rows = measured(images)
    reached = [row for row in rows if row.reached]
    best = min(reached, key=lambda row: row.at_target.read_bytes_per_image, default=None)
    print(f"{len(reached)} coarser rows within {POINTS} point with {SAVED:.0%} less memory", end="")
    print("" if best is None else f"; least is read by {best.format}, {best.fitted}, {best.reads}")
    content = {
        "images": images,
        "images_at_budgets": PROBED,
        "calibration_images": CALIBRATION_SCENES,
        "int8_resident_bytes": bench.whole,
        "int8_expert_bytes": bench.experts,
        "saved_limit": SAVED,
        "points_limit": POINTS,
        "reached": len(reached),
        "least_read": None if best is None else asdict(best),
        "rows": [asdict(row) for row in rows],
    }
    print(store_results("digits_experts", content, f"python benchmarks/digits_experts.py --images {images}"))
    if images == 256:
        replace_tables(DOCUMENT, "digits_experts", {"digits": table(rows)})
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
