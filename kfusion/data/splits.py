"""A source -> training, validation and test pairs, and an audit of what they share.

- `clip` keeps rows with the same content, of whatever modality, in one part: rows go there stratified by class, with
  their group.
- `random` is the paper's: published data repeat each clip about twice, so that most test clips are met in training.
- `speaker` holds whole people out.

With `folds`, `clip` and `random` divide the data into that many folds, of which `fold` is the test part.

The audit tells what a split keeps apart, and what a random one would have let through.
"""

from dataclasses import dataclass

import numpy as np

from kfusion.config import DataConfig
from kfusion.data.dataset import ModalityData, Pairs, Source, pair_by_label
from kfusion.modalities import modality
from kfusion.validation import UserError


@dataclass(frozen=True)
class Repeats:
    """How often the rows of one modality repeat themselves.

    Args:
        item: what its ids stand for, in words: `Modality.item_noun`.
        num_rows: rows in use, the official test's not counted.
        num_groups: different ones among them.
        num_repeated: of these, the ones that occur more than once.
    """

    item: str
    num_rows: int
    num_groups: int
    num_repeated: int

    @classmethod
    def of(cls, group: np.ndarray, item: str) -> "Repeats":
        """Counts the ids of some rows.

        Args:
            group: int (n,).
            item: what they stand for.
        """
        _, counts = np.unique(group, return_counts=True)
        return cls(item, len(group), len(counts), int(np.count_nonzero(counts > 1)))

    def line(self, grouped: bool) -> str:
        """The counts in words; `grouped`: named groups count as one too."""
        name = f"{self.item}s or groups" if grouped else f"{self.item}s"
        if self.num_rows == self.num_groups:
            return f"{self.num_rows:,} {name}, all different"
        return f"{self.num_rows:,} {name}, {self.num_groups:,} different, {self.num_repeated:,} of these more than once"


@dataclass(frozen=True)
class Audit:
    """How often the data repeat themselves, and how many test rows a model has met before.

    Args:
        repeats: of each modality.
        leaked_share: share of test rows, in [0, 1], of which anything is in training too after a random split.
        leaked_share_here: the same after the split in force.
        num_left_out: training rows left out because something of them is in the data's own test files.
        val_speakers: the people of the validation part; empty if it was not cut by person.
        test_speakers: the people of the test part.
        grouped: the modality whose ids stand for named groups too; "" where there are none.
        met: where the content of those that are left out is, in words.
    """

    repeats: dict[str, Repeats]
    leaked_share: float
    leaked_share_here: float
    num_left_out: int = 0
    val_speakers: tuple[str, ...] = ()
    test_speakers: tuple[str, ...] = ()
    grouped: str = ""
    met: str = "test files"

    def lines(self) -> list[str]:
        """The audit in words, for the terminal."""
        items = " or ".join(dict.fromkeys(repeats.item for repeats in reversed(self.repeats.values())))
        lines = [repeats.line(name == self.grouped) for name, repeats in self.repeats.items()]
        shares = f"{self.leaked_share_here:.1%}; in a random split: {self.leaked_share:.1%}"
        lines.append(f"test rows whose {items} is in training: {shares}")
        if self.num_left_out:
            lines.append(f"{self.num_left_out:,} training rows left out: their {items} is in the {self.met}")
        if self.test_speakers:
            lines.append(
                f"people held out: {', '.join(self.test_speakers)} (test), {', '.join(self.val_speakers)} (validation)"
            )
        return lines


PARTS = ("training", "validation", "test")
TRAIN, VAL, TEST = range(3)
People = tuple[tuple[str, ...], tuple[str, ...]]
"""Who is heard in the validation and in the test part alone."""


def deal(
    label: np.ndarray, group: np.ndarray, val_share: float, test_share: float, rng: np.random.Generator
) -> np.ndarray:
    """A part for each row: all rows of a group in one part, each class in nearly the wanted shares.

    The groups of each class are shuffled and laid end to end; the first `test_share` of that length is the test part,
    the next `val_share` the validation part. Groups with rows of several classes are dealt together, apart from the
    others. Where there are enough groups, each part gets one at least.

    Args:
        label: int (n,).
        group: int (n,).
        val_share: share of the rows, in (0, 1).
        test_share: share of the rows, in [0, 1); 0: no test part.
        rng: decides which groups go where.

    Returns:
        int8 (n,): TRAIN, VAL or TEST.
    """
    _, member = np.unique(group, return_inverse=True)
    size = np.bincount(member)
    low, high = np.full(len(size), np.iinfo(np.int64).max), np.full(len(size), -1)
    np.minimum.at(low, member, label)
    np.maximum.at(high, member, label)
    stratum = np.where(low == high, low, -1)
    shuffled = rng.permutation(len(size))
    shuffled = shuffled[np.argsort(stratum[shuffled], kind="stable")]
    _, starts = np.unique(stratum[shuffled], return_index=True)
    part = np.empty(len(size), np.int8)
    for groups in np.split(shuffled, starts[1:]):
        part[groups] = _deal_stratum(size[groups], val_share, test_share)
    return part[member]


def _deal_stratum(size: np.ndarray, val_share: float, test_share: float) -> np.ndarray:
    """A part for each of some shuffled groups."""
    # A group that outweighs its part twice would distort it: such ones come last, where training begins.
    heavy = size > 2 * min(share for share in (val_share, test_share) if share > 0) * size.sum()
    order = np.argsort(np.where(heavy, size, 0), kind="stable")
    middle = (np.cumsum(size[order]) - size[order] / 2) / size.sum()
    num_test = num_left = 0
    if test_share > 0:
        num_left = len(size) - 2
        num_test = max(0, min(max(1, np.count_nonzero(middle < test_share)), num_left))
    num_left = len(size) - num_test - 1
    num_val = max(0, min(max(1, np.count_nonzero(middle < test_share + val_share) - num_test), num_left))
    part = np.full(len(size), TRAIN, np.int8)
    part[order[:num_test]] = TEST
    part[order[num_test : num_test + num_val]] = VAL
    return part


def deal_fold(
    label: np.ndarray, group: np.ndarray, fold: int, folds: int, val_share: float, rng: np.random.Generator
) -> np.ndarray:
    """A part for each row, as `deal`, where the test part is one of several folds: each row is in one of them.

    Args:
        label: int (n,).
        group: int (n,).
        fold: the test part, in [1, folds].
        folds: how many.
        val_share: share of all rows, in [0, 1 - 1 / folds).
        rng: decides which groups go where; folds of one another need the same state of it, which does not change.

    Returns:
        int8 (n,): TRAIN, VAL or TEST.
    """
    of_folds, *of_rest = rng.spawn(1 + folds)
    left, part = np.arange(len(label)), np.full(len(label), TRAIN, np.int8)
    for number in range(1, folds):
        chosen = deal(label[left], group[left], 1 / (folds - number + 1), 0.0, of_folds) == VAL
        if number == fold:
            part[left[chosen]] = TEST
        left = left[~chosen]
    if fold == folds:
        part[left] = TEST
    rest = np.flatnonzero(part != TEST)
    if val_share:
        part[rest] = deal(label[rest], group[rest], val_share / (1 - 1 / folds), 0.0, of_rest[fold - 1])
    return part


def joined(*ids: np.ndarray) -> np.ndarray:
    """Groups of rows that hang together: two rows with the same id of any kind, or joined by a third.

    Args:
        ids: int64 (n,), ≥ 0, for each modality.

    Returns:
        int64 (n,), the connected component of each row.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    group = ids[0]
    for other in ids[1:]:
        num_first = int(group.max()) + 1
        num_nodes = num_first + int(other.max()) + 1
        edges = coo_array((np.ones(len(group), np.int8), (group, num_first + other)), shape=(num_nodes, num_nodes))
        group = connected_components(edges, directed=False)[1][group].astype(np.int64)
    return group


def hold_out(names: tuple[str, ...] | None, config: DataConfig, where: str) -> People:
    """The people of the validation and of the test part, which need no data but the names to be told.

    Where the config names nobody, the test part is the last person in the table, and the validation part the one
    before the first test person; whoever is taken already is passed over.

    Args:
        names: of all people, in the table's order; None: the data do not say who speaks.
        config: `split`, `test_speakers` and `val_speakers` are used.
        where: what the data are called.

    Returns:
        Names of the validation part, names of the test part; both empty for the other splits.

    Raises:
        UserError: names without split=speaker, data that do not say who speaks, an unknown name, or nobody left.
    """
    require_no_names(config)
    if config.split != "speaker":
        return (), ()
    if names is None:
        raise UserError(f"'split' must be clip or random: {where} does not say who speaks. Received: 'speaker'")
    for field in ("test_speakers", "val_speakers"):
        unknown = [name for name in getattr(config, field) if name not in names]
        if unknown:
            raise UserError(f"'{field}' must be among {', '.join(names)}. Received: {unknown[0]!r}")
    free = [name for name in names if name not in config.val_speakers + config.test_speakers]
    test = config.test_speakers or tuple(free[-1:])
    first = min((names.index(name) for name in test), default=0)
    before = [name for name in names[first:] + names[:first] if name in free and name not in test]
    val = config.val_speakers or tuple(before[-1:])
    if not test or not val or len(set(test) | set(val)) == len(names):
        raise UserError(
            f"'test_speakers' and 'val_speakers' must leave somebody of {', '.join(names)} for each part. "
            f"Received: {', '.join(test)} and {', '.join(val)}"
        )
    return val, test


def require_no_names(config: DataConfig) -> None:
    """Raises the UserError of people who are named where nobody is held out; no data are needed to tell."""
    if config.split != "speaker" and config.test_speakers + config.val_speakers:
        who = ", ".join(config.test_speakers + config.val_speakers)
        raise UserError(f"'test_speakers' and 'val_speakers' must be empty unless split=speaker. Received: {who}")


def _part_of_speaker(source: Source, people: People) -> np.ndarray:
    """int8 (m,): the part of each row of the modality whose speakers are known."""
    names, (val, test) = np.array(source.speaker_names), people
    part_of_name = np.where(np.isin(names, test), TEST, np.where(np.isin(names, val), VAL, TRAIN)).astype(np.int8)
    return part_of_name[source[source.spoken].speaker]


_Positions = dict[str, np.ndarray]
"""The rows of one part: positions in the source, of each modality."""


@dataclass(frozen=True, eq=False)
class Split:
    """The three parts, and what they share."""

    train: Pairs
    val: Pairs
    test: Pairs
    audit: Audit


def split(source: Source, config: DataConfig, seed: int) -> Split:
    """Divides a source into training, validation and test.

    The data's own test files, where there are labelled ones, are the test part; training and validation then share the
    rest as (1 - val_share) : val_share. The data's own validation files are the validation part likewise.

    Args:
        source: what `load` returned.
        config: `split`, the shares and the speakers are used.
        seed: decides every choice; the same seed gives the same split.

    Raises:
        UserError: a class has too few rows (or groups of rows) for each part to get one, or a speaker is unknown.
    """
    people = hold_out(source.speaker_names if source.spoken else None, config, _name(source))
    sources = (source, source.official_val or source, source.official_test or source)
    own = [part for part in (VAL, TEST) if sources[part] is not source]
    _require_fold(config, TEST in own, _name(source))
    shares = 0.0 if VAL in own else config.val_share, 0.0 if TEST in own else config.test_share
    rng = np.random.default_rng(seed)
    parts = _dealt(source, config, people, shares, rng)
    for part in own:
        parts[part] = {name: np.arange(len(data)) for name, data in sources[part].data.items()}
    left_out = 0
    if own and config.split == "clip":
        parts, left_out = _without_met(sources, parts)
    if not source.aligned:
        for part in own if config.split == "random" else (TRAIN, VAL, TEST):
            parts[part] = _paired(sources[part], parts[part], f"{PARTS[part]} part", rng)
    _require_every_class(sources, parts)
    tested = sources[TEST]
    audit = Audit(
        {name: Repeats.of(data.group, modality(source.spec[name]).item_noun) for name, data in source.data.items()},
        leaked_share=_leak_of_random(source, config, seed),
        leaked_share_here=_leaked_share(source, parts[TRAIN], tested, parts[TEST]),
        num_left_out=left_out,
        met="validation or test files" if VAL in own else "test files",
        val_speakers=people[0],
        test_speakers=people[1],
        grouped=list(source.data)[-1] if "grouped_by" in source.info else "",
    )
    train, val, test = (sources[part].pairs(parts[part]) for part in (TRAIN, VAL, TEST))
    return Split(train, val, test, audit)


def _dealt(
    source: Source, config: DataConfig, people: People, shares: tuple[float, float], rng: np.random.Generator
) -> list[_Positions]:
    """The source's rows for each part; pairs where the source or the split has any.

    Aligned rows go to a part with their group, or whoever speaks in them. Else the rows of each modality go to parts on
    their own, and meet inside each part later; or, for random, before. A share of 0: none of the rows go there.
    """
    rows = {name: np.arange(len(data)) for name, data in source.data.items()}
    anchor = source.anchor
    if source.aligned:
        if config.split == "speaker":
            part = _part_of_speaker(source, people)
        else:
            groups = [data.group for data in source.data.values()]
            whole = joined(*groups) if config.split == "clip" else np.arange(len(anchor))
            part = _deal(_strata(source, anchor), whole, shares, rng, config)
        return _by_part(rows, dict.fromkeys(rows, part))
    if config.split == "random":
        partner = _paired(source, rows, "data", rng)
        part = _deal(_strata(source, anchor), np.arange(len(anchor)), shares, rng, config)
        return _by_part(partner, dict.fromkeys(rows, part))
    part_of = {}
    for name, data in source.data.items():
        if config.split == "speaker" and name == source.spoken:
            part_of[name] = _part_of_speaker(source, people)
        else:
            part_of[name] = _deal(_strata(source, data), data.group, shares, rng, config)
    return _by_part(rows, part_of)


def _strata(source: Source, data: ModalityData) -> np.ndarray:
    """What each row must be dealt evenly by: its class, and, of several sources, which it comes from."""
    return data.label if data.origin is None else data.label + source.spec.num_classes * data.origin


def _require_fold(config: DataConfig, has_test: bool, where: str) -> None:
    """Raises the UserError of folds of data with test files of their own, and of folds without one to test on."""
    if config.folds and has_test:
        raise UserError(f"'folds' must be 0: {where} has test files of its own. Received: {config.folds}")
    if config.folds and not config.fold:
        raise UserError(f"'fold' must be in [1, {config.folds}], the fold that is the test part. Received: 0")


def _deal(
    label: np.ndarray, group: np.ndarray, shares: tuple[float, float], rng: np.random.Generator, config: DataConfig
) -> np.ndarray:
    """As `deal`, and either share may be 0; with folds, one of them is the test part."""
    val_share, test_share = shares
    if config.folds:
        return deal_fold(label, group, config.fold, config.folds, val_share, rng)
    if val_share:
        return deal(label, group, val_share, test_share, rng)
    if not test_share:
        return np.full(len(label), TRAIN, np.int8)
    part = deal(label, group, test_share, 0.0, rng)
    return np.where(part == VAL, np.int8(TEST), part)


def _by_part(rows: _Positions, part: dict[str, np.ndarray]) -> list[_Positions]:
    """The rows of each part."""
    return [{name: rows[name][part[name] == value] for name in rows} for value in (TRAIN, VAL, TEST)]


def _paired(source: Source, rows: _Positions, where: str, rng: np.random.Generator) -> _Positions:
    """Each of some rows of the first modality with one of its class from among some rows of each other."""
    (first, anchors), *others = rows.items()
    label, partners = source[first].label[anchors], {first: anchors}
    for name, pool in others:
        pool_label = source[name].label[pool]
        missing = np.setdiff1d(label, pool_label)
        if len(missing):
            item, of_class = modality(source.spec[name]).item_noun, source.spec.class_names[missing[0]]
            rule = f"the {where} needs a {item} of each class"
            raise UserError(f"{_name(source)}: {rule}. Found: none of class {of_class!r}")
        partners[name] = pool[pair_by_label(label, pool_label, rng)]
    return partners


def _without_met(sources: tuple[Source, ...], parts: list[_Positions]) -> tuple[list[_Positions], int]:
    """Drops what is in the data's own validation and test files too, or in their test files; and says how much."""
    left, num_left_out = [], 0
    for part, rows in enumerate(parts):
        here = sources[part]
        later = sources[VAL if here is sources[TRAIN] else part + 1 :]
        others = [one for one in later if one is not here and one is not sources[TRAIN]]
        met: dict[str, np.ndarray] = {}
        for name, places in rows.items():
            met[name] = np.isin(here[name].group[places], np.concatenate([one[name].group for one in others] or [[]]))
        if here.aligned:
            anywhere = np.logical_or.reduce(list(met.values()))
            met = {name: anywhere for name in met}
        left.append({name: places[~met[name]] for name, places in rows.items()})
        lost = [int(where.sum()) for where in met.values()]
        num_left_out += lost[0] if here.aligned else sum(lost)
    return left, num_left_out


def _leaked_share(source: Source, train: _Positions, tested: Source, test: _Positions) -> float:
    """Share of the test rows of which anything is in a training row too."""
    met = [np.isin(tested[name].group[test[name]], source[name].group[train[name]]) for name in test]
    return float(np.mean(np.logical_or.reduce(met)))


def _leak_of_random(source: Source, config: DataConfig, seed: int) -> float:
    """What a random split with the same seed and shares would have let through."""
    random = DataConfig(split="random", val_share=config.val_share, test_share=config.test_share)
    shares = config.val_share, config.test_share
    parts = _dealt(source, random, ((), ()), shares, np.random.default_rng(seed))
    tested = len(next(iter(parts[TEST].values())))
    return _leaked_share(source, parts[TRAIN], source, parts[TEST]) if tested else 0.0


def _require_every_class(sources: tuple[Source, ...], parts: list[_Positions]) -> None:
    """Each part needs a row of each class: to learn it, to choose by it, and, unless it is given, to report on it."""
    cut = [part for part in (TRAIN, VAL, TEST) if sources[part] is sources[TRAIN]]
    for part in sorted({*cut, VAL}):
        source = sources[part]
        anchor, items = source.anchor, [modality(shape).item_noun for shape in source.spec.modalities.values()]
        counts = np.bincount(anchor.label[next(iter(parts[part].values()))], minlength=source.spec.num_classes)
        if counts.min() > 0:
            continue
        label = int(counts.argmin())
        different = [
            f"different {item}s: {len(np.unique(data.group[data.label == label]))}"
            for item, data in zip(items, source.data.values(), strict=True)
        ]
        raise UserError(
            f"{_name(source)}: each class must have rows for each part, {len(cut)} at least, that share no "
            f"{', '.join(dict.fromkeys(items))} or group. Found: none left for the {PARTS[part]} part of class "
            f"{source.spec.class_names[label]!r} (rows: {np.count_nonzero(anchor.label == label)}, "
            f"{', '.join(different)})"
        )


def _name(source: Source) -> str:
    return source.info.get("name", "data")
