"""Trains a model on a config, tests it, and leaves a run folder: the steps of `python -m kfusion.train`.

train          config -> run folder
  gather           the data, read and divided
  open_or_begin    the folder, with all that is known before the first step
  new_network      the untrained network
  fit_networks     its training, or that of several, from the checkpoint on
  keep_best        which of them, or of the baselines, is the run's
  write_results    figures, report.txt, metrics.json
"""

import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

from kfusion import run_dir
from kfusion.config import Config, DataConfig, differences
from kfusion.data.dataset import Pairs, Source
from kfusion.data.in_memory import OwnData
from kfusion.data.pipeline import TrainingReader, evaluation_batches, readers_errors, training_batches
from kfusion.environment import apply_precision, environment, has_accelerator, resolve_precision
from kfusion.exporting.samples import keep_samples
from kfusion.inference import load_network, measure_trust, predict_views
from kfusion.io import read_back, read_json, same_arrays, write_atomically, write_text
from kfusion.metrics import classification
from kfusion.modalities import each_of
from kfusion.modalities.encoders import trained_variables
from kfusion.model.build import as_float32, build_model, with_all_views
from kfusion.model.trust import write_trust
from kfusion.plots import tables
from kfusion.plots import training as plots
from kfusion.prepared_data import PreparedData, fitted, gather
from kfusion.random_streams import sample_keys
from kfusion.recipes import EARLIER, RECIPES, smaller
from kfusion.run_dir import Run
from kfusion.spec import FUSED
from kfusion.training.baselines import Baselines, fit_baselines, remark, scores
from kfusion.training.fit import (
    Scalars,
    Task,
    best_epoch,
    fit,
    history_table,
    read_history,
    seed_everything,
    with_augmentation,
)
from kfusion.validation import UserError

BASELINES, SMALLER, NETWORK = "baselines", "smaller", "network"
"""What may be kept, the simplest first."""
FEW_ROWS = 2000
"""Training rows below which a smaller network may be the better one."""
NUM_SHOWN, NUM_CHANGED = 6, 6
"""Samples in the picture of the augmentation, and changed versions of each."""


def write_results(
    run: Run, prepared: PreparedData, baselines: Baselines, console: Console | None, choice: dict[str, Any]
) -> None:
    """Tests the best network, and writes figures, report.txt and, last, metrics.json.

    Args:
        run: a run that has been trained.
        prepared: its data.
        baselines: that it has to beat.
        console: where the results are printed; None: nowhere.
        choice: from `keep_best`; empty: nothing was to be chosen.
    """
    parts, training = prepared.parts, prepared.config.training
    network = load_network(run)
    results = evaluate(network, parts.val, parts.test, prepared.prior)
    results["baselines"] = baselines.facts(parts.test, parts.val)
    results |= {"choice": choice} if choice else {}
    tested = prepared.source.official_test or prepared.source
    if origin := tested.origin(parts.test):
        answers = predict_views(network, parts.test)
        results["sources"] = classification.by_origin(answers, parts.test.label, origin, tested.origins)
    names = parts.test.spec.class_names
    history = read_history(run.history)
    results["best_epoch"] = best_epoch(history, training.best_by)
    results["epochs"], results["batch_size"] = len(history), prepared.training.batch_size
    run.figures.mkdir(exist_ok=True)
    plots.save(plots.learning_curves(history.reset_index(), results["best_epoch"]), run.figures, "learning_curves")
    plots.save(plots.confusion_matrix(np.array(results["confusion"]), names), run.figures, "confusion")
    for name, figure in augmented_samples(prepared).items() if choice.get("kept") != BASELINES else ():
        plots.save(figure, run.figures, f"augmented_{name}")
    said = choice.get("line") or remark(results["baselines"], results["val"])
    text = [
        classification.report_text(results["report"]),
        views_text(results["views"], results["baselines"]["views"]),
        *([f"{said}\n"] if said else []),
    ]
    write_text(run.folder / "report.txt", "\n".join(text))
    keep_samples(run, parts)
    done = prepared.training
    steps = len(history) * done.passes * len(parts.train) / done.batch_size
    if trust := measure_trust(network, parts.train, parts.val, prepared.augmentation(harmless=True), steps):
        write_trust(run, trust)
    run.write_json("metrics.json", results)
    if console:
        console.print(tables.report_table(results["report"]))
        console.print(tables.results_table(results["views"], results["baselines"]["views"]))
        if "sources" in results:
            console.print(tables.sources_table(results["sources"], tables.Words.of(parts.test.spec)))
        if said:
            console.print(said, soft_wrap=True)


def views_text(views: dict[str, Any], baselines: dict[str, Any]) -> str:
    """A line for each view of the model, for late fusion, and for each baseline.

    Args:
        views: of metrics.json.
        baselines: its baselines' views.
    """
    rows = tables.result_rows(views, baselines)
    width = max(22, *(len(title) for title, *_ in rows))
    lines = [f"{title:>{width}} {accuracy} of {num_rows}" for title, accuracy, *_, num_rows in rows]
    return "\n".join(lines) + "\n"


def evaluate(network: keras.Model, val: Pairs, test: Pairs, prior: np.ndarray) -> dict[str, Any]:
    """The figures of a network's test part; temperatures are fitted on validation.

    Args:
        network: {name: values, "present"} -> probabilities.
        val: the validation part.
        test: the test part.
        prior: (num_classes,), the classes' shares of the training part.

    Returns:
        {"views", "temperature", "confusion", "report", "val"}, ready for JSON; "val" holds the views' scores on the
        validation part.
    """
    on_val, on_test, names = predict_views(network, val), predict_views(network, test), test.spec.names
    temperature = {
        name: classification.fit_temperature(on_val[name], val.label, val.is_present(name)) for name in names
    }
    summary = classification.view_summary(test.label, on_test, temperature, prior, test.present)
    summary["val"] = scores(on_val, val)
    summary["report"] = classification.report(test.label, on_test[FUSED].argmax(axis=1), test.spec.class_names)
    return summary


def augmented_samples(prepared: PreparedData) -> dict[str, Any]:
    """A few training samples beside what the first epochs make of them, a figure for each modality that changes."""
    pairs, augment = prepared.parts.train, prepared.augmentation()
    rows = np.unique(pairs.label, return_index=True)[1][:NUM_SHOWN]
    before = pairs.read(rows)
    batch = {name: tf.constant(values) for name, values in before.items()}
    seed = prepared.config.training.seed
    changed = [augment(batch, tf.constant(sample_keys(seed, epoch, rows))) for epoch in range(NUM_CHANGED)]
    titles = [pairs.spec.class_names[label] for label in pairs.label[rows]]
    grids = {}
    for name, kind, shape in each_of(pairs.spec):
        if augment.layers[name] or name == pairs.spec.names[0]:
            columns = [before[name], *(version[name].numpy() for version in changed)]
            pictures = [kind.pictures(values, shape, before[name]) for values in columns]
            stem = Path(kind.array_file).stem if name == kind.kind else name
            grids[stem or name] = plots.sample_grid(pictures, titles)
    return grids


Callbacks = tuple[keras.callbacks.Callback, ...]


def train(
    config: Config,
    folder: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
    callbacks: Callbacks = (),
    tensorboard: bool = False,
    own: OwnData | None = None,
    finish_stopped: bool = False,
    source: Source | None = None,
) -> Run:
    """Trains, tests, and leaves a run folder.

    Args:
        config: every setting.
        folder: the run folder to be.
        resume: go on from the folder's checkpoint.
        overwrite: replace the run that is in the folder.
        console: where progress and results are shown; None: nowhere.
        callbacks: more Keras callbacks, called after kfusion's own. One that stops training leaves the run unfinished,
            unless `finish_stopped`.
        tensorboard: write loss, accuracy and the rest for TensorBoard, into `tensorboard/` in the run folder.
        own: data that a program passes, which the run is to keep; None: those that the config names.
        finish_stopped: a run that a callback stopped after an epoch or more is finished all the same.
        source: the data that the config names, where they have been read already.

    Returns:
        The run.

    Raises:
        UserError: the data, the settings or the folder break a rule; nothing is written then.
    """
    arithmetic = resolve_precision(config.training.precision)
    # Before the data, which may take minutes to decode, and before the lock, which already writes.
    if resume and run_dir.begun(folder):
        config = _as_begun(folder, config)
        run = _opened(folder, config)
        if run.finished and own is None:  # Data that a program passes are compared with the run's first.
            return _finished(run, console)
    else:
        run_dir.check_new(folder, overwrite)
        if own is None:
            for data in config.data.sources:
                _check_data_kept(folder, data)
    run_dir.check_unlocked(folder)
    prepared = gather(config, console, own.source if own else source)
    if resume and run_dir.begun(folder):
        prepared = replace(prepared, config=run_dir.open_run(folder).config())  # It may have been begun by other rules.
    computes = apply_precision(arithmetic)
    network = new_network(prepared)  # Where its encoder cannot be had, nothing is written.
    with run_dir.lock(folder):
        place = own.place if own else None
        # Killed before its config was written, a run has nothing to go on from: it starts.
        run = open_or_begin(folder, prepared, computes, resume and run_dir.begun(folder), overwrite, place)
        if run.finished:  # By another process, while this one read the data.
            return _finished(run, console)
        if console:
            console.print(*prepared.lines(), "", sep="\n", soft_wrap=True)
        fitted = fit_networks(run, prepared, network, console, callbacks, tensorboard, finish_stopped)
        if fitted is not None:
            apply_precision("float32")  # The figures of a run do not depend on the arithmetic it was trained in.
            baselines = baselines_of(prepared)
            choice = keep_best(run, prepared, fitted, baselines) if run not in fitted.values() else {}
            small = choice.get("kept") == SMALLER
            write_results(run, as_smaller(prepared) if small else prepared, baselines, console, choice)
            shutil.rmtree(run.folder / run_dir.CANDIDATES, ignore_errors=True)
    return run


def as_smaller(prepared: PreparedData) -> PreparedData:
    """The same data with the settings of a smaller network."""
    return replace(prepared, config=smaller(prepared.config))


def fit_networks(
    run: Run,
    prepared: PreparedData,
    network: keras.Model,
    console: Console | None,
    callbacks: Callbacks,
    tensorboard: bool,
    finish_stopped: bool,
) -> dict[str, Run] | None:
    """Trains the networks of which one may be kept, each from its checkpoint on.

    Args:
        run: the run folder.
        prepared: its config and data.
        network: from `new_network`.
        console: where progress is shown; None: nowhere.
        callbacks: more Keras callbacks, called last.
        tensorboard: write scalars.
        finish_stopped: a network that a callback stopped after an epoch or more counts as trained.

    Returns:
        The place of each by its name: the run itself where there is nothing to choose. None: a callback stopped one.
    """
    learner, small = prepared.config.training.learner, len(prepared.parts.train) < FEW_ROWS
    names = {"network": [NETWORK], "baselines": [], "auto": [NETWORK, *([SMALLER] if small else [])]}[learner]
    if console and learner == "auto":
        among = tables.together([BASELINES, *names])
        console.print(f"auto: {among}; what is best on validation is kept\n", soft_wrap=True)
    places = {name: run if learner == "network" else Run(run.folder / run_dir.CANDIDATES / name) for name in names}
    for name, place in places.items():
        own = as_smaller(prepared) if name == SMALLER else prepared
        model = new_network(own) if name == SMALLER else network
        place.folder.mkdir(parents=True, exist_ok=True)
        if console and len(places) > 1:
            console.print(name, style="bold")
        scalars = Scalars(run.tensorboard if place is run else run.tensorboard / name, place.history)
        whole = fit_run(place, own, model, console, (*([scalars] if tensorboard else []), *callbacks))
        if not whole and not (finish_stopped and place.best.exists()):
            return None
        write_atomically(place.last, as_float32(model).save)
    return places


def keep_best(run: Run, prepared: PreparedData, places: dict[str, Run], baselines: Baselines) -> dict[str, Any]:
    """Makes the run's network the one that is best on validation; of equals, the simpler one.

    Args:
        run: the run folder.
        prepared: its config and data.
        places: from `fit_networks`.
        baselines: the simplest candidate.

    Returns:
        {"kept", "line", "val"}, ready for JSON: the candidate's name, what was decided by what in a line, and the
        scores of each candidate's views.
    """
    val, best_by = prepared.parts.val, prepared.config.training.best_by
    networks = {BASELINES: baselines.network, **{name: load_network(places[name]) for name in reversed(places)}}
    answers = {name: predict_views(network, val) for name, network in networks.items()}
    found = {name: scores(views, val) for name, views in answers.items()}
    figure = {name: float(np.mean([each[best_by] for each in views.values()])) for name, views in found.items()}
    sign = -1 if best_by == "loss" else 1
    kept = max(figure, key=lambda name: sign * figure[name])
    if kept == BASELINES:
        for path in (run.best, run.last):
            write_atomically(path, as_float32(baselines.network).save)
        write_atomically(run.history, history_table((baselines.history(prepared.parts.train, found[kept]),)).to_csv)
    else:
        for name in ("best.keras", "last.keras", "history.csv"):
            write_atomically(run.folder / name, partial(shutil.copyfile, places[kept].folder / name))
    shown = ", ".join(f"{name} {value:.4f}" for name, value in figure.items())
    views = tables.together(title for view, title in tables.view_titles(found[kept]).items())
    line = f"{kept} kept: validation {best_by.replace('_', '-')}, the mean of {views}: {shown} of {len(val)}"
    return {"kept": kept, "line": line, "val": found}


def baselines_of(prepared: PreparedData) -> Baselines:
    """The baselines of the training part."""
    train, source, training = prepared.parts.train, prepared.source, prepared.config.training
    group = {name: source[name].group[places] for name, places in train.positions.items()}
    return fit_baselines(train, group, prepared.prior, training.seed, training.class_weight == "balanced")


def open_or_begin(
    folder: Path,
    prepared: PreparedData,
    computes: str,
    resume: bool,
    overwrite: bool = False,
    place: Callable[[Path], object] | None = None,
) -> Run:
    """The run folder with all that is known before the first step; the caller must hold its lock.

    Args:
        folder: of the run.
        prepared: its config and data.
        computes: the arithmetic, from `apply_precision`.
        resume: the folder holds this run already.
        overwrite: replace the run that it holds.
        place: puts data that the run is to keep into the emptied folder.

    Raises:
        UserError: it holds a run of other settings or other data.
    """
    facts, rows, config = prepared.facts(), prepared.rows(), prepared.config
    if resume:
        run = _opened(folder, config)
        if run.data() != read_back(facts) or not same_arrays(run.split(), rows):
            raise UserError(f"{folder}: '--resume' needs the data of the run. Found: other files or rows")
        run_dir.remove_partial(folder)
        return run
    run = run_dir.new_run(folder, overwrite)
    if place:
        place(run.folder)
    run.write_arrays("split.npz", rows)
    # The config comes last: with it, the folder is a run.
    for name, values in {"data": facts, "environment": environment(computes), "config": config.to_json()}.items():
        run.write_json(f"{name}.json", values)
    return run


def new_network(prepared: PreparedData) -> keras.Model:
    """The untrained network of a config, fixed by its seed: {name: values, "present"} -> probabilities."""
    config, statistics = prepared.config, prepared.statistics
    seed_everything(config.training.seed, config.training.deterministic)
    return build_model(config.model, prepared.spec, statistics.prepared_mean, statistics.prepared_variance)


def fit_run(
    run: Run, prepared: PreparedData, network: keras.Model, console: Console | None = None, callbacks: Callbacks = ()
) -> bool:
    """Fits a network from `new_network`, from the run's checkpoint on or from the start.

    Args:
        run: where its files go.
        prepared: the config and the data.
        network: to be fitted.
        console: where progress is shown; None: nowhere.
        callbacks: more of them, called last.

    Returns:
        Whether the config's last epoch was reached; a callback may stop before.

    Raises:
        UserError: the loss is not finite any more, a file of the data changed, or there is no memory for a batch.
    """
    config, training = prepared.config, prepared.training
    # With a single modality all views are one and the same, and late fusion of them has nothing to teach.
    all_views = training.views == "all" and len(prepared.spec.names) > 1
    on_device = training.augment_on == "device" or (training.augment_on == "auto" and has_accelerator())
    augment = prepared.augmentation()
    model = with_augmentation(with_all_views(network) if all_views else network, augment if on_device else None)
    reader = TrainingReader(prepared.parts.train, training.batch_size, training.seed, config.augment, all_views)
    dropout, passes = config.augment.modality_dropout, training.passes
    task = Task(
        batches=lambda first: training_batches(
            reader, None if on_device else augment, dropout, first * passes, training.epochs * passes, on_device
        ),
        validation=evaluation_batches(prepared.parts.val, with_keys=on_device, all_views=all_views),
        num_rows=len(prepared.parts.train) * passes,
        steps_per_epoch=reader.steps_per_pass * passes,
        prior=prepared.prior,
        class_weight=prepared.class_weight,
        temperature=tuple(kind.teacher_temperature for _, kind, _ in each_of(prepared.spec)) if all_views else (),
        paths={"best": run.best, "history": run.history, "checkpoint": run.checkpoint},
        save_file=write_atomically,
        save_network=lambda path: as_float32(network).save(path),
        some_lack=all_views and any(part.present is not None for part in (prepared.parts.train, prepared.parts.val)),
        trained=trained_variables(network, config.model),
        freeze_share=config.model.freeze_share,
    )
    with readers_errors():
        progress = fit(model, training, task, console, callbacks)
    return progress.epoch == training.epochs


def _as_begun(folder: Path, config: Config) -> Config:
    """The config with what the run was begun with, where nobody says otherwise.

    These are the defaults of settings that are newer, and what its recipe was, if that has changed since.
    """
    begun, noted = run_dir.open_run(folder).config(), read_json(folder / "config.json")
    for section in fields(Config):
        mine, its = getattr(config, section.name), getattr(begun, section.name)
        recipes, earlier = [getattr(each, section.name) for each in RECIPES.values()], EARLIER.get(section.name, {})
        older = noted.get(section.name, {})
        kept = {
            name: value
            for name, value in vars(its).items()
            if getattr(mine, name) in [getattr(each, name) for each in recipes]
            and (name not in older or (name in earlier and value == earlier[name]))
        }
        config = replace(config, **{section.name: replace(mine, **kept)})
    return config


def _opened(folder: Path, config: Config) -> Run:
    """The run in a folder, which must have this config.

    Raises:
        UserError: it has other settings.
    """
    run = run_dir.open_run(folder)
    earlier, spec = run.config(), run.spec()
    settings = [name for _, kind, shape in each_of(spec) for name in kind.file_settings(shape)]
    # What is left to the files now may have been named then.
    left = [name for name in settings if getattr(config.data, name) == getattr(DataConfig, name)]
    config = replace(config, data=replace(config.data, **{name: getattr(earlier.data, name) for name in left}))
    changed = differences(fitted(earlier, spec)[0], fitted(config, spec)[0])
    if changed:
        raise UserError(f"{folder}: '--resume' needs the settings of the run. Found: another {', '.join(changed)}")
    return run


def _finished(run: Run, console: Console | None) -> Run:
    """Prints that there is nothing left to do."""
    if console:
        console.print(f"{run.folder}: this run is finished already", soft_wrap=True)
    return run


def _check_data_kept(folder: Path, data: str) -> None:
    """Checks that the data of the new run do not lie in the folder that it replaces.

    Raises:
        UserError: the data lie in the folder that would be emptied.
    """
    if data != "builtin" and Path(data).resolve().is_relative_to(folder.resolve()):
        rule = "a run must not replace the data that it is trained on; choose another --out"
        raise UserError(f"{folder}: {rule}. Received: 'data' {data!r}")
