"""Settings of hetero-client, hetero-infer and hetero-status."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator
from pydantic_settings import CliPositionalArg
from typing_extensions import Self

from hetero_client.data.partition import parse_cuts, parse_shard
from hetero_client.data.settings import DataSettings
from hetero_client.data.source import DATASETS
from hetero_client.exits.rule import DEFAULT_RULE, Criterion
from hetero_client.exits.settings import ExitSettings
from hetero_client.exits.thresholds import Target
from hetero_common.agreement.plan import Plan
from hetero_common.compute.augmentation import AUGMENTATIONS
from hetero_common.compute.optimizers import OPTIMIZERS
from hetero_common.compute.schedules import SCHEDULES
from hetero_common.errors import SettingsError
from hetero_common.models.exits import EXIT_HEADS
from hetero_common.models.networks import MODELS
from hetero_common.models.normalization import NORMALIZATIONS
from hetero_common.registry import is_own, registry_of
from hetero_common.settings import Settings, host_and_port

_OF_THE_SERVER = frozenset({"tokens"})
"""Could be taken for a misspelt `token`."""


class ModelExpectation(BaseModel, frozen=True, use_attribute_docstrings=True):
    """What a client expects of the run. The server decides; a client that expects another stops.

    What is code of the user's own must be expected by name. With --list-cuts they name the model to
    list.
    """

    model: Annotated[str, MODELS] | None = None
    """Refuse to train any other model; with --list-cuts, the model to list."""
    width: int | None = Field(None, ge=1)
    """Refuse any other number of channels of the first stage; with --list-cuts, the one to list."""
    stem: Literal["cifar", "imagenet"] | None = None
    """Refuse any other first layer; with --list-cuts, the one to list."""
    image_size: int | None = Field(None, ge=4)
    """Refuse any other image size, in pixels per side; with --list-cuts, the one to list."""
    classes: int | None = Field(None, ge=2)
    """Refuse any other number of classes; with --list-cuts, the one to list."""
    exit_head: Annotated[str, EXIT_HEADS] | None = None
    """Refuse any other exit head; with --list-cuts, the one to list."""
    normalization: Annotated[str, NORMALIZATIONS] | None = None
    """Refuse to train with any other normalization."""
    augment: Annotated[str, AUGMENTATIONS] | None = None
    """Refuse to train with any other augmentation."""
    optimizer: Annotated[str, OPTIMIZERS] | None = None
    """Refuse to train with any other optimizer."""
    lr_schedule: Annotated[str, SCHEDULES] | None = None
    """Refuse to train with any other schedule of the learning rates."""

    def expected(self) -> dict[str, object]:
        """The expectations that were set."""
        values = {name: getattr(self, name) for name in ModelExpectation.model_fields}
        return {name: value for name, value in values.items() if value is not None}

    def require(self, plan: Plan) -> None:
        """Raise SettingsError unless the plan meets the expectations.

        A thing of the user's own is code that would be run at the server's word, so it must be
        expected by name.
        """
        expected = self.expected()
        for name, field in Plan.model_fields.items():
            value = getattr(plan, name)
            if registry_of(field) and is_own(value) and name not in expected:
                flag = f"--{name.replace('_', '-')}"
                raise SettingsError(
                    f"the server trains with {value}, which is code on this device: "
                    f"repeat {flag} {value} here if it is yours"
                )
        for name, value in expected.items():
            if getattr(plan, name) != value:
                flag = f"--{name.replace('_', '-')}"
                raise SettingsError(
                    f"{flag} {value} was expected, but the server trains with "
                    f"{getattr(plan, name)}: drop {flag}, or start the server with {flag} {value}"
                )


class CredentialSettings(BaseModel, frozen=True, use_attribute_docstrings=True):
    """Who this device is to the server, and how it knows the server."""

    certs: Path | None = None
    """Directory with ca.pem, client.pem and client.key; by default ~/.config/hetero-splitee/certs,
    if it exists and the server's address is not loopback. With a token, ca.pem is enough."""
    insecure: bool = False
    """Talk to a server of another machine without TLS, even where the default certificates exist:
    for a server that runs with --insecure."""
    token: SecretStr | None = None
    """Token that says who this client is. Other users of the machine see a flag: better in the
    variable HETERO_TOKEN or in a file. It is not kept in settings.yaml."""
    token_file: Path | None = None
    """File that holds the token."""

    def resolved_token(self) -> str | None:
        """The token, wherever it was given.

        Raises:
            SettingsError: The file cannot be read, or what it holds is no token.
        """
        text = self.token.get_secret_value() if self.token else None
        if text is None and self.token_file is not None:
            try:
                text = self.token_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError):
                raise SettingsError(f"--token-file {self.token_file} cannot be read") from None
        if text is not None and (not text or not all("!" <= letter <= "~" for letter in text)):
            raise SettingsError("a token consists of ASCII letters, digits and signs, no spaces")
        return text


class ClientSettings(
    Settings, DataSettings, ExitSettings, ModelExpectation, CredentialSettings, frozen=True
):
    """Train layers 1..l and an early exit on this device, together with a hetero-server."""

    other_commands: ClassVar = _OF_THE_SERVER

    cut_layer: int | None = None
    """Last layer on this device; --list-cuts prints what each choice costs."""
    run_dir: Path | None = None
    """Directory for settings, metrics and weights; by default runs/CLIENT_ID."""
    http: str = "off"
    """HOST:PORT of this client's metrics for Prometheus; off: there are none."""
    tensorboard: bool = False
    """Write event files of TensorBoard, too, into tensorboard/ of the run directory."""
    server: str = "127.0.0.1:50051"
    """HOST:PORT of the server."""
    client_id: str | None = None
    """Name of this device, stable across restarts; by default host name, cut layer and shard."""
    shard: str = "1/1"
    """Which part of the training images is this device's: I/N, counted from 1."""
    cut_layers: str | None = None
    """Cut layers of all clients, separated by commas and dealt out to the shards in turn, as in
    hetero-sim. Only --cut-skew needs them."""
    connect_timeout: float = Field(60.0, gt=0)
    """Seconds to wait for a server that does not answer yet."""
    checkpoint_seconds: float = Field(10.0, ge=0)
    """Seconds between states that are kept on the disk, at least, beside those that the server asks
    for; 0: one at the end of each round. What is lost where this process dies is the optimizer's
    state, and the weights if nobody averages them."""
    list_cuts: bool = False
    """Print what each cut layer costs, and stop."""

    @field_validator("http")
    @classmethod
    def _somewhere(cls, text: str) -> str:
        return text if text == "off" else host_and_port(text)

    @field_validator("shard")
    @classmethod
    def _known_shard(cls, text: str) -> str:
        parse_shard(text)
        return text

    @model_validator(mode="after")
    def _own_among_all(self) -> Self:
        index, _ = parse_shard(self.shard)
        cuts = self.cuts()
        if cuts and self.cut_layer not in (None, cuts[index]):
            raise SettingsError(
                f"--cut-layer is {self.cut_layer}, but by --cut-layers {self.cut_layers} that of "
                f"shard {self.shard} is {cuts[index]}: all clients take the same --cut-layers"
            )
        return self

    def cuts(self) -> list[int]:
        """Cut layer of each shard, where they were given."""
        _, count = parse_shard(self.shard)
        return parse_cuts(self.cut_layers, count)

    def resolved_client_id(self) -> str:
        """The client id to register with."""
        default = f"{socket.gethostname()}-cut{self.cut_layer}"
        if self.shard != "1/1":
            default += f"-shard{self.shard.replace('/', 'of')}"
        return self.client_id or default


class CalibrationSettings(BaseModel, frozen=True, use_attribute_docstrings=True):
    """Choose the threshold on labeled images that were not trained on, and keep it with the run.

    Exactly one of --offload, --accuracy and --max-loss says what it is chosen for.
    """

    calibrate: bool = False
    """Choose the threshold, on the images that the client has held out (--validation), or on those
    of validation/<class>/* with --dataset folder:PATH."""
    offload: float | None = Field(None, ge=0, le=1)
    """Offload at most this share of the images."""
    accuracy: float | None = Field(None, ge=0, le=1)
    """Offload as little as reaches this accuracy on the images."""
    max_loss: float | None = Field(None, ge=0, lt=1)
    """Offload as little as loses at most this accuracy against the server, on all images like
    these: the share that the exit answers wrong and the server would have answered right."""
    confidence: float = Field(0.95, gt=0, lt=1)
    """Probability with which --max-loss holds."""

    def target(self) -> Target:
        """The target that the threshold is to be chosen for.

        Raises:
            SettingsError: Nothing or more than one thing was said.
        """
        targets = self.targets()
        if len(targets) != 1:
            given = " and ".join(f"--{target.kind}" for target in targets) or "none of them"
            raise SettingsError(
                "--calibrate takes exactly one of --offload, --accuracy and --max-loss, but got "
                f"{given}"
            )
        return targets[0]

    def targets(self) -> list[Target]:
        """All that was said of it."""
        given = []
        if self.offload is not None:
            given.append(Target("offload", self.offload))
        if self.accuracy is not None:
            given.append(Target("accuracy", self.accuracy))
        if self.max_loss is not None:
            given.append(Target("max-loss", self.max_loss, self.confidence))
        return given


class StatusSettings(Settings, CredentialSettings, frozen=True):
    """Tell how the run of a server stands."""

    other_commands: ClassVar = _OF_THE_SERVER

    server: str = "127.0.0.1:50051"
    """HOST:PORT of the server."""
    output: Literal["table", "json"] = "table"
    """A table, or one JSON object."""


class InferenceSettings(Settings, CalibrationSettings, CredentialSettings, frozen=True):
    """Answer images with a trained device and, where it is not sure, its server."""

    other_commands: ClassVar = _OF_THE_SERVER
    images: CliPositionalArg[tuple[Path, ...]] = ()
    """Image files to answer."""
    run: Path
    """Run directory of the client that was trained."""
    server: str = "127.0.0.1:50051"
    """HOST:PORT of a server that trains this run, or serves it with --serve."""
    threshold: float | None = Field(None, ge=-1, le=1)
    """Largest uncertainty that the exit answers at; 1: always, negative: never. By default what
    --calibrate has chosen for this run, else 0.5."""
    criterion: Criterion | None = None
    """What an exit's uncertainty is: its normalized entropy, or what its largest probability lacks
    to 1 (confidence). By default that of the calibration, else entropy."""
    deadline_ms: float = Field(2000, gt=0)
    """Milliseconds to wait for the server per request; then the exit answers, degraded."""
    dataset: Annotated[str, DATASETS] | None = None
    """Answer the test split of this data set instead of image files, and report accuracy."""
    data_dir: Path = Path("data")
    """Where cifar10, cifar100 and stl10 are kept."""
    samples: int = Field(0, ge=0)
    """Number of test images to answer; 0: all."""
    batch_size: int = Field(32, ge=1, le=256)
    """Images per request."""
    curve: bool = False
    """Show accuracy versus offload over all thresholds; takes --dataset."""
    output: Literal["table", "json"] = "table"
    """A table, or one JSON object per line."""

    @property
    def wanted_criterion(self) -> Criterion:
        """The given criterion, or the default; a kept calibration comes before the default."""
        return self.criterion or DEFAULT_RULE.criterion
