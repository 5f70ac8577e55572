"""The verification of a SavedModel: what it answers, what it refuses, and what is in it.

`verify` asks the model through TensorFlow's C API, in a process of its own, as a server would hold it. Its graph may
hold plain ops alone, which every TensorFlow has on a CPU: no Python (`PyFunc`), no cuDNN, no custom ops, nothing that
touches a file but the loading of the weights, no state that one request leaves to the next, and no random numbers.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich import box
from rich.table import Table
from rich.text import Text

from kfusion.exporting.runtimes import Reply, Request, Session, ask_apart
from kfusion.exporting.samples import REFUSED, BadRequest
from kfusion.runtime.protos import read_ops, read_signatures
from kfusion.spec import SHARES

WEIGHTS = """VarHandleOp ReadVariableOp AssignVariableOp VarIsInitializedOp DisableCopyOnRead RestoreV2 SaveV2
    MergeV2Checkpoints ShardedFilename StaticRegexFullMatch"""
STRUCTURE = """Const Identity IdentityN NoOp Placeholder PartitionedCall StatefulPartitionedCall If StatelessIf While
    StatelessWhile Switch Merge Assert EnsureShape StopGradient PreventGradient"""
SHAPES = """Shape Size Rank Reshape ExpandDims Squeeze Pack Unpack ConcatV2 Split SplitV Slice StridedSlice Tile Fill
    Range ZerosLike OnesLike BroadcastTo BroadcastArgs Transpose GatherV2 GatherNd Cast Pad PadV2 MirrorPad ReverseV2
    Bitcast InvertPermutation Where"""
ARITHMETIC = """Add AddV2 AddN Sub Mul Div RealDiv FloorDiv FloorMod DivNoNan Neg Abs Sign Square Sqrt Rsqrt Pow Exp Log
    Log1p Sin Cos Erf Erfc Floor Ceil Round Rint Maximum Minimum SquaredDifference Reciprocal ClipByValue Cumsum"""
LOGIC = "Equal NotEqual Less LessEqual Greater GreaterEqual LogicalAnd LogicalOr LogicalNot Select SelectV2 IsFinite"
REDUCTIONS = "Sum Mean Max Min Prod All Any ArgMax ArgMin"
NETWORK = """MatMul BatchMatMulV2 BatchMatMulV3 Einsum BiasAdd Conv2D MaxPool AvgPool Relu Sigmoid Tanh Softmax
    LogSoftmax Elu FusedBatchNormV3"""
STRINGS = "AsString StringJoin ReduceJoin StringLength StringSplitV2 StaticRegexReplace Substr"
FILES = "DecodeRaw TopKV2 UnsortedSegmentSum"
"""Of the readers of files; ops that one kind alone needs are in its `Modality.ops`."""

ALLOWED = frozenset(
    " ".join((WEIGHTS, STRUCTURE, SHAPES, ARITHMETIC, LOGIC, REDUCTIONS, NETWORK, STRINGS, FILES)).split()
)
TOLERANCE = 1e-5
"""How far an answer may be from the network's own, for each number."""
COARSE = {"familiarity": 1e-3, SHARES: 1e-3}
"""How far these may be: both are logarithms, of distances and of odds, before they are what they are."""
BATCHES = (1, 2, 7, 64)

Arrays = Mapping[str, np.ndarray]


class VerificationError(Exception):
    """An export that predicts otherwise than its network, or that holds what it must not."""


@dataclass(frozen=True)
class Check:
    """A line of the table: what was checked, whether it passed, and what was found."""

    title: str
    passed: bool
    found: str


@dataclass(frozen=True, eq=False)
class Plan:
    """The requests to a model.

    Args:
        known: requests, and what computes the network's own prediction.
        bad: requests that must be refused.
        warmup: the requests in the model's own warmup file.
        ops: what its graph may hold.
    """

    known: list[tuple[Request, Callable[[], Arrays]]]
    bad: list[BadRequest]
    warmup: list[Request]
    ops: frozenset[str] = ALLOWED

    def requests(self) -> list[Request]:
        """All of them; after each bad request the first good one of its endpoint."""
        known = [request for request, _ in self.known]
        again = [part for each in self.bad for part in (each.request, known[self.good(each)])]
        return known + again + self.warmup

    def good(self, bad: BadRequest) -> int:
        """The place of the first known request to the same endpoint."""
        return next(at for at, (each, _) in enumerate(self.known) if each.signature == bad.request.signature)


def verify(folder: Path, plan: Plan) -> list[Check]:
    """Everything that is verified of a SavedModel before it is published.

    Args:
        folder: a SavedModel.
        plan: the requests.

    Returns:
        The lines of the table; the model is verified if all have passed.
    """
    checks = [_ops(folder, plan.ops), _weights(folder)]
    with ThreadPoolExecutor(1) as thread:  # The other process answers while this one computes what is expected.
        asked = thread.submit(ask_apart, folder, plan.requests())
        expected = [answer() for _, answer in plan.known]
        session = asked.result()
    checks.append(_process(session, len(plan.requests())))
    if not checks[-1].passed:
        return checks
    replies, first_bad = session.replies, len(plan.known)
    first_warmup = first_bad + 2 * len(plan.bad)
    checks += _parity(plan, expected, replies[:first_bad], list(read_signatures(folder)))
    checks.append(_refusals(plan, expected, replies[first_bad:first_warmup]))
    checks.append(_warmup(replies[first_warmup:]))
    return checks


def table(checks: list[Check]) -> Table:
    """The checks for the terminal."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("check", no_wrap=True)
    shown.add_column("", no_wrap=True)
    shown.add_column("found", overflow="fold")
    for check in checks:
        # A Text: what was found may hold brackets, which rich would read as markup.
        verdict = "passed" if check.passed else "FAILED"
        shown.add_row(check.title, verdict, Text(check.found), style=None if check.passed else "bold")
    return shown


def distance(answer: Arrays, expected: Arrays) -> float:
    """The largest difference of any number; infinite where outputs are missing, or labels or names differ.

    That of `COARSE` outputs counts as much less as they are allowed more.

    Args:
        answer: the outputs of a model, by name.
        expected: what they should be.
    """
    if answer.keys() != expected.keys():
        return float("inf")
    worst = 0.0
    for name, wanted in expected.items():
        got = answer[name]
        if got.shape != wanted.shape:
            return float("inf")
        if wanted.dtype.kind in "f":
            # A NaN must not pass for small, unless it is one that was read, as a missing number is.
            difference = np.nan_to_num(np.abs(got - wanted), nan=np.inf)
            difference = difference * (TOLERANCE / COARSE.get(name, TOLERANCE))
            worst = max(worst, float(np.where(np.isnan(got) & np.isnan(wanted), 0, difference).max()))
        elif not np.array_equal(got, wanted):
            return float("inf")
    return worst


def _ops(folder: Path, allowed: frozenset[str] = ALLOWED) -> Check:
    ops = read_ops(folder)
    foreign = sorted(ops - allowed)
    found = f"{len(ops)} kinds, nested functions included" if not foreign else f"not allowed: {', '.join(foreign)}"
    return Check("ops are plain", not foreign, found)


def _weights(folder: Path) -> Check:
    kinds = tf.train.load_checkpoint(str(folder / "variables" / "variables")).get_variable_to_dtype_map()
    floats = {kind.name for kind in kinds.values() if kind.is_floating}
    return Check("weights are float32", floats == {"float32"}, ", ".join(sorted(floats)))


def _process(session: Session, num_requests: int) -> Check:
    title = "C API, no Python"
    if session.end or len(session.replies) < num_requests:
        return Check(title, False, f"request {len(session.replies) + 1} of {num_requests}: {session.end}")
    found = f"loaded in {session.load_seconds:.1f} s, {num_requests} requests"
    return Check(title, "tensorflow" not in session.modules, found)


def _parity(plan: Plan, expected: list[Arrays], replies: list[Reply], signatures: list[str]) -> list[Check]:
    checks = []
    for signature in signatures:
        known = [
            (reply, wanted, next(iter(request.inputs.values())))
            for (request, _), wanted, reply in zip(plan.known, expected, replies, strict=True)
            if request.signature == signature
        ]
        refusals = [reply.text for reply, _, _ in known if reply.code != "OK"]
        worst = max((distance(reply.outputs, wanted) for reply, wanted, _ in known), default=float("inf"))
        sizes = ", ".join(str(len(values)) for _, _, values in known)
        found = refusals[0] if refusals else f"largest difference {worst:.1e}, batches {sizes}"
        checks.append(Check(signature, not refusals and worst <= TOLERANCE, found))
    return checks


def _refusals(plan: Plan, expected: list[Arrays], replies: list[Reply]) -> Check:
    wrong = []
    for each, reply, after in zip(plan.bad, replies[::2], replies[1::2], strict=True):
        if reply.code != REFUSED or each.phrase not in reply.text:
            wrong.append(f"{each.request.signature}, {each.title}: {reply.code} {reply.text}".rstrip())
        elif after.code != "OK" or distance(after.outputs, expected[plan.good(each)]) > TOLERANCE:
            wrong.append(f"{each.request.signature}, after {each.title}: a good request is answered wrong")
    found = wrong[0] if wrong else f"all {len(plan.bad)} refused, then a good one answered"
    return Check("bad requests", not wrong, found)


def _warmup(replies: list[Reply]) -> Check:
    failed = [reply.text for reply in replies if reply.code != "OK"]
    return Check("warmup requests", not failed, failed[0] if failed else f"all {len(replies)} replayed")
