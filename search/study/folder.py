"""The folder of a sweep: its request, written and read, and the sweep as it is read from there."""

from __future__ import annotations

import html
import platform
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from generalist_core.config.codec import from_dict, to_dict
from generalist_core.data.splits import Dataset
from generalist_core.fingerprints import split_fingerprint
from generalist_core.models.build import ModelFactory
from generalist_core.randomness import derive_seed
from generalist_core.user_code import function_digest, require_unchanged
from generalist_core.validation import InvalidConfigError
from search.config import CustomParts, SweepConfig
from search.errors import SweepFolderError
from search.files import read_json, write_json
from search.folders import SweepFolder
from search.front.front import Front
from search.front.pick import Pick, pick
from search.interruption import do_nothing, on_interruption
from search.study.ledger import Ledger
from search.study.records import TrialCounts
from search.study.request import is_recorded, record, require_recorded, what_counts
from search.study.results import Results
from search.study.samplers import N_STARTUP, build_samplers
from search.study.storage import masked, open_storage, place_of
from search.wording import plural
from spaces import SPACES, Space

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 2
"""The format of a sweep's files; format 1, whose files do not name it, used other names."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Sweep:
    """A sweep in its folder, finished or not."""

    folder: Path
    config: SweepConfig
    ledger: Ledger
    custom: CustomParts = field(default_factory=CustomParts)

    def __repr__(self) -> str:
        return f"<Sweep {self._summary}; {self.front!r}>"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(f'Sweep {self._summary}')}</p>{self.front._repr_html_()}"

    @property
    def _summary(self) -> str:
        counts = self.counts
        ended = (
            f"{plural(counts.completed, 'trial')} completed, {counts.stopped_early} stopped early"
        )
        more = {"failed": counts.failed, "unfinished": counts.unfinished}
        return ", ".join(
            [f"{self.folder}: {ended}", *(f"{n} {how}" for how, n in more.items() if n)]
        )

    @property
    def files(self) -> SweepFolder:
        """The names of the sweep's files."""
        return SweepFolder(self.folder)

    @property
    def results(self) -> Results:
        """The results of the trials so far."""
        return self.ledger.results

    @property
    def front(self) -> Front:
        """The operating points that no other dominates."""
        return self.results.front()

    @property
    def hypervolume(self) -> float:
        """The hypervolume of the front."""
        return self.front.hypervolume

    @property
    def trials(self) -> pd.DataFrame:
        """One row per trial, see `search.study.tables.trials_table`."""
        from search.study.tables import trials_table

        return trials_table(self.results)

    @property
    def points(self) -> pd.DataFrame:
        """One row per operating point, see `search.study.tables.points_table`."""
        from search.study.tables import points_table

        return points_table(self.results)

    @property
    def counts(self) -> TrialCounts:
        """How many trials ended in which way."""
        return self.results.counts()

    def pick(self, spec: str) -> Pick:
        """One point of the front, and the reason for it, see `search.front.pick.pick`."""
        return pick(self.front, spec, self.results.points())


def open_sweep(folder: str | Path, *, accept: bool = False) -> Sweep:
    """Open the folder of a sweep to read it.

    Args:
        folder: the folder.
        accept: whether the request may have changed in settings that a `resume` may change.

    Raises:
        SweepFolderError: it holds no sweep, a damaged one, one of another format, or one whose
            request has changed since it was written.
    """
    folder = Path(folder)
    stored, config = _read_document(folder)
    files = SweepFolder(folder)
    if config.storage is None and not files.journal.is_file():
        raise SweepFolderError(
            f"{folder} must hold the {files.journal.name} of a sweep, but does not."
        )
    ledger = open_ledger(folder, config, stored["study"])
    require_recorded(files.request, stored, ledger.study, accept=accept)
    return Sweep(folder=folder, config=config, ledger=ledger)


def begin_ledger(
    folder: Path, config: SweepConfig, custom: Mapping[str, Any], pins: Mapping[str, str]
) -> Ledger:
    """Write the request of a new sweep into its folder, see `write_request`, and begin its study.

    A signal waits for both: a request without its study could not be resumed.
    """
    study = f"{folder.name}-{uuid.uuid4().hex[:8]}"
    with on_interruption(do_nothing):
        write_request(folder, config, study, custom, pins)
        return open_ledger(folder, config, study, is_new=True)


def open_ledger(folder: Path, config: SweepConfig, study: str, *, is_new: bool = False) -> Ledger:
    """Open the ledger of a sweep, or begin a new one, whose study records the request."""
    seed = derive_seed(config.seed, "sampler") % 2**32
    journal = SweepFolder(folder).journal
    ledger = Ledger(
        open_storage(config.storage, journal),
        config.base.evaluation.objective_names,
        sampler_of=build_samplers(config.sampler, seed=seed, n_startup=N_STARTUP),
        floors=config.at_least,
        study=study,
        is_new=is_new,
        place=place_of(config.storage, journal),
    )
    if is_new:
        record_request(folder, ledger)
    return ledger


def record_request(folder: Path, ledger: Ledger) -> None:
    """Record what `sweep.json` holds as the request of the sweep."""
    record(ledger.study, read_json(SweepFolder(folder).request))


def write_request(
    folder: Path,
    config: SweepConfig,
    study: str,
    custom: Mapping[str, Any],
    pins: Mapping[str, str] | None = None,
) -> None:
    """Write the request of a sweep, and the environment that it was made in.

    `custom` is what `custom_parts` returns, and `pins` what `pinned_space` does, with the digest of
    the images under `images`; the other files of the user's are pinned in the request itself.
    """
    write_json(SweepFolder(folder).request, _document(config, study, custom, pins or {}))


def rewrite_request(
    folder: Path,
    config: SweepConfig,
    study: optuna.Study,
    custom: Mapping[str, Any],
    pins: Mapping[str, str],
) -> None:
    """Write the request in the folder and in the study, unless both have it.

    A crash at any moment leaves the old request or the new one, and a study that knows it.
    """
    document, path = _document(config, study.study_name, custom, pins), SweepFolder(folder).request
    if is_recorded(study, document) and what_counts(read_json(path)) == what_counts(document):
        return
    record(study, document, will_be=True)
    write_json(path, document)
    record(study, document)


def _document(
    config: SweepConfig, study: str, custom: Mapping[str, Any], pins: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "request": to_dict(config),
        "study": study,
        "custom": dict(custom),
        "pins": dict(pins),
        "environment": _environment(config.storage),
    }


def read_request(folder: Path) -> SweepConfig:
    """Read the request of a sweep.

    Raises:
        SweepFolderError: there is no request, or it is damaged or of another format.
    """
    return _read_document(folder)[1]


def _read_document(folder: Path) -> tuple[dict[str, Any], SweepConfig]:
    """The content of `sweep.json`, and the request in it."""
    path = SweepFolder(folder).request
    stored = read_json(path)
    is_request = isinstance(stored, dict) and {"request", "study"} <= set(stored)
    if is_request and stored.get("format") != FORMAT:
        raise SweepFolderError(
            f"{path} must be a sweep's request of format {FORMAT}, but is one of format "
            f"{stored.get('format', 1)}. Open the sweep with the version that began it."
        )
    if not (is_request and _is_whole(stored)):
        raise SweepFolderError(f"{path} must hold a sweep's request, but does not.")
    try:
        return stored, from_dict(stored["request"], SweepConfig)
    except InvalidConfigError as error:
        raise SweepFolderError(f"{path} must hold a sweep's request, but: {error}") from error


def _is_whole(stored: Mapping[str, Any]) -> bool:
    """Whether what stands beside the request has the form in which `write_request` writes it."""
    custom, pins = stored.get("custom"), stored.get("pins", {})
    return (
        isinstance(stored["study"], str)
        and isinstance(custom, dict)
        and {"data", "model"} <= set(custom)
        and isinstance(pins, dict)
        and all(isinstance(digest, str) for digest in pins.values())
    )


def custom_parts(data: Dataset | None, model: ModelFactory | None) -> dict[str, Any]:
    """Which parts of a sweep the user passed from Python; later calls need the same."""
    return {
        "data": split_fingerprint(data.train) if data is not None else None,
        "model": model is not None,
    }


def require_custom_parts(folder: Path, data: Dataset | None, model: ModelFactory | None) -> None:
    """Check that a sweep with the user's data or model is used with the same data and a model.

    Raises:
        InvalidConfigError: a part is missing, or the data is not that of the sweep.
    """
    used = read_json(SweepFolder(folder).request)["custom"]
    given = custom_parts(data, model)
    cure = "Call it from Python with data= and model= as in the sweep."
    if used["data"] not in (None, given["data"]):
        raise InvalidConfigError(f"The data must be the data of the sweep, but is not. {cure}")
    if used["model"] and model is None:
        raise InvalidConfigError(f"The model must be the model of the sweep, but got none. {cure}")


def pinned_space(config: SweepConfig, space: Space | None) -> dict[str, str]:
    """The digest of the file of the space under `space`, unless it is built in or from Python."""
    if space is not None or config.space in SPACES:
        return {}
    return {"space": function_digest(config.space)}


def require_pinned_space(folder: Path, config: SweepConfig, space: Space | None) -> dict[str, str]:
    """The pins of a sweep, after a check that the file of its space is the one that it began with.

    Raises:
        InvalidConfigError: the file has changed.
    """
    pins: dict[str, str] = read_json(SweepFolder(folder).request).get("pins", {})
    if space is None and "space" in pins:
        require_unchanged(config.space, pins["space"])
    return pins


def require_pinned_images(pins: Mapping[str, str], images: str) -> None:
    """Check that the train and validation images have the digest that a sweep began with.

    Raises:
        InvalidConfigError: they have not.
    """
    if pins.get("images", images) != images:
        raise InvalidConfigError(
            "The train and validation images must be those of the sweep, whose digest is "
            f"{pins['images']}, but theirs is {images}. Restore the files, or begin a new sweep."
        )


def _environment(storage: str | None) -> dict[str, str]:
    """What the result depends on in addition to the request; exported models pass it on."""
    url = storage or ""
    command = [word.replace(url, masked(url)) if url else word for word in sys.orig_argv]
    packages = ("generalist-search", "torch", "torchvision", "ray", "optuna", "moocore")
    return {
        "command": shlex.join(command),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": _commit() or "unknown",
        **{package: _version(package) for package in packages},
    }


def _commit() -> str:
    """The commit of the source; empty where there is none, or no git."""
    git = shutil.which("git")
    if git is None:
        return ""
    place, command = Path(__file__).parent, [git, "rev-parse", "HEAD"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip()


def _version(package: str) -> str:
    """The version of a package; a local sweep needs no Ray, and a checkout is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
