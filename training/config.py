"""What a training is made of, as a TOML file; see docs/training.md for all keys."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from models.architectures import NetworkConfig
from models.manifest import AlarmRule, FilterSpec, ScoreSpec, WindowSpec
from stream.leads import LEADS

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]

_SHIPPED = Path(__file__).parent / "configs"

# Sections whose `kind` or `architecture` says which keys they have; pydantic names the choice in the place
# of an error, the file does not.
_CHOICES = ("network", "loss")


# Losses and scores of what only a variational network says.
_VARIATIONAL = ("elbo", "attention_elbo", "log_normalised")


class ConfigError(ValueError):
    """A configuration that cannot be used; the text is one line: which file, which key, and why."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MseLoss(_Part):
    """Mean squared error (see `training.fitting.losses.mse`)."""

    kind: Literal["mse"] = "mse"


class ElboLoss(_Part):
    """Negative evidence lower bound, divergence weighted (see `training.fitting.losses.negative_elbo`)."""

    kind: Literal["elbo"] = "elbo"
    beta_max: NotNegative = 1.0
    """Weight of the divergence, per point as the likelihood is: at 1 the loss is the bound itself."""
    schedule: Literal["constant", "linear", "cyclical"] = "linear"
    """How the weight reaches `beta_max`: there from the start, once, or in `cycles` (arXiv:1903.10145)."""
    annealing: Share = 0.3
    """Share of the training during which the weight changes; after it, it is `beta_max`."""
    cycles: Positive = 4
    """Of the cyclical schedule: each rises during its first half and stays at `beta_max` in its second."""
    free_bits: NotNegative = 0.0
    """Nats of each latent dimension, on average over windows and latent steps, that cost what nothing would
    (arXiv:1606.04934): a dimension gains nothing by collapsing onto the prior."""
    variance_warmup: Share = 0.0
    """Share of the training during which the likelihood has unit variance: before the mean is any good, a
    network that may choose its variance lowers the loss by widening it."""


class ScoreChoice(_Part):
    """How an error becomes a score (see `models.scoring`)."""

    kind: str = "log_mse"
    """One of those of `models.manifest.ScoreSpec`."""
    alpha: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of the kinds ``elbo`` and ``attention_elbo``: weight of the error, against that of its variance."""
    beta: NotNegative | None = None
    """Of the same: weight of the divergence."""
    distance_weight: NotNegative | None = None
    """Weight of the feature distance beside the error; for a network with a density."""

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        known = get_args(ScoreSpec.model_fields["kind"].annotation)
        if kind not in known:
            raise ValueError(f"must be one of {', '.join(known)}, is {kind!r}")
        return kind


class CalibrationConfig(_Part):
    """How much is measured after training, at most.

    A slow network needs less for the same time, and knows its figures less well.
    """

    windows: Positive = 3000
    """Windows of training normals, for score statistics (see `training.calibration.statistics`)."""
    stretches: Annotated[int, Field(ge=0)] = 800
    """Validation normals and annotated recordings, for false alarms: a loop of each (see
    `training.calibration.stretches`)."""
    maps: Annotated[int, Field(ge=0)] = 60
    """Validation normals, for the check of maps; 0: no check, and no map is said to be informative."""


class FitConfig(_Part):
    """How the weights are fitted (see `training.fitting.fit`)."""

    epochs: Positive = 30
    """At most."""
    patience: Positive = 10
    """Stop after so many epochs without a lower validation loss, counted from the end of the annealing."""
    batch: Positive = 32
    crops_per_record: Positive = 5
    """Windows that an epoch takes of each recording."""
    learning_rate: PositiveFloat = 1e-3
    """At the peak: the first tenth of the steps rises to it, the rest falls to zero as a cosine."""
    weight_decay: NotNegative = 0.0
    gradient_clip: PositiveFloat | None = None
    """Largest norm of the gradient. Recurrent networks need one: a gradient through hundreds of steps can
    be a thousand times larger in one batch than in the next (arXiv:1211.5063)."""
    seed: Annotated[int, Field(ge=0)] = 0


class Augmentation(_Part):
    """What is done to the input and not to the target (see `training.fitting.augment`); 0 is: nothing.

    Strengths are standard deviations, in standard deviations of the lead.
    """

    all_leads_share: Share = 0.2
    """Share of windows that keep all their leads; of the others a random number of leads is masked."""
    noise: NotNegative = 0.2
    """White noise in all leads."""
    wander: NotNegative = 0.0
    """Baseline wander: at most, another strength for every lead."""
    muscle: NotNegative = 0.0
    """A burst of muscle noise in each lead: at most."""
    rate_warp: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The target too: windows are stretched or shortened by up to this share."""
    time_mask: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Longest block of samples taken away, as a share of the window."""


class TrainConfig(_Part):
    """One model and its training."""

    name: Annotated[str, Field(min_length=1)]
    """Of the model; its manifest says it."""
    description: str
    network: NetworkConfig
    window: WindowSpec
    filter: FilterSpec = FilterSpec()
    loss: Annotated[MseLoss | ElboLoss, Field(discriminator="kind")] = MseLoss()
    score: ScoreChoice = ScoreChoice()
    calibration: CalibrationConfig = CalibrationConfig()
    fit: FitConfig = FitConfig()
    augmentation: Augmentation = Augmentation()
    alarm: AlarmRule
    max_batch: Positive = 32
    """Windows that serving gives the network at once."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.network.samples != self.window.samples:
            raise ValueError(
                f"network.samples: {self.network.samples}, but window.samples: {self.window.samples}"
            )
        if self.network.leads != len(LEADS):
            raise ValueError(f"network.leads: must be {len(LEADS)}, is {self.network.leads}")
        if self.window.hop > self.window.fs:
            raise ValueError(f"window.hop: {self.window.hop} is more than a second")
        architecture = self.network.architecture
        for key, kind in (("loss.kind", self.loss.kind), ("score.kind", self.score.kind)):
            if kind in _VARIATIONAL and architecture == "cae":
                raise ValueError(f"{key}: {kind} needs a variational network, not {architecture}")
        if self.score.kind == "attention_elbo" and architecture != "vae-bilstm-mha":
            raise ValueError(f"score.kind: attention_elbo needs temporal attention, {architecture} has none")
        weights = {self.score.alpha, self.score.beta}
        if weights != {None} and self.score.kind not in ("elbo", "attention_elbo"):
            raise ValueError(f"score: {self.score.kind} has neither alpha nor beta")
        if self.score.distance_weight and not self.network.density:
            raise ValueError("score.distance_weight: needs a network with a density")
        span = (self.alarm.n - 1) * self.window.hop + self.window.samples
        if span < 2 * self.window.samples:
            # Windows that overlap are not independent: see `AlarmRule`.
            raise ValueError(f"alarm.n: {self.alarm.n} windows span less than two window lengths")
        return self


def config_names() -> list[str]:
    """Return the names of the configurations that come with the package, sorted."""
    return sorted(path.stem for path in _SHIPPED.glob("*.toml"))


def load_config(name_or_path: str | Path, overrides: Iterable[str] = ()) -> TrainConfig:
    """Read a configuration.

    Parameters
    ----------
    name_or_path : str or pathlib.Path
        One of `config_names`, or the path of a TOML file.
    overrides : iterable of str
        ``section.key=value`` each, the value as in TOML; quotes around a text may be left out.

    Returns
    -------
    TrainConfig

    Raises
    ------
    ConfigError
        If there is no such file, or something in it is not as it must be.
    """
    shipped = _SHIPPED / f"{name_or_path}.toml"
    path = shipped if str(name_or_path) in config_names() else Path(name_or_path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"no configuration {str(name_or_path)!r}: name one of {', '.join(config_names())}, or a TOML file"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML ({error})") from error
    for override in overrides:
        _override(content, override)
    return parse_config(content, path.name)


def parse_config(content: Mapping[str, Any], source: str) -> TrainConfig:
    """Check the content of a configuration; `source` is what an error calls it.

    Raises
    ------
    ConfigError
    """
    try:
        return TrainConfig.model_validate(content)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        place = [str(part) for part in problems[0]["loc"]]
        if len(place) > 1 and place[0] in _CHOICES:
            del place[1]
        key = ".".join(place)
        why = problems[0]["msg"].removeprefix("Value error, ")
        if problems[0]["type"] == "extra_forbidden":
            why = "there is no such key"
        elif problems[0]["type"] == "missing":
            why = "is missing"
        elif problems[0]["type"] not in ("value_error", "union_tag_invalid", "union_tag_not_found"):
            why += f", is {problems[0]['input']!r}"
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConfigError(f"{source}: {f'{key}: ' if key else ''}{why}{more}") from error


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    *sections, last = key.strip().split(".")
    if not equals or not last:
        raise ConfigError(f"--set {override}: write it as section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    at = content
    for section in sections:
        at = at.setdefault(section, {})
        if not isinstance(at, dict):
            raise ConfigError(f"--set {override}: {section} is not a section")
    at[last] = value
