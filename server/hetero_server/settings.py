"""Settings of hetero-server, and the strategy settings that the simulator shares."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, create_model, field_validator, model_validator
from typing_extensions import Self

from hetero_common.agreement.plan import Plan
from hetero_common.records.checkpoints import CHECKPOINTS, owner_of
from hetero_common.records.rundir import SETTINGS_FILE
from hetero_common.settings import Settings, host_and_port, read_yaml
from hetero_server.learning.strategies import STRATEGIES
from hetero_server.presets import PRESETS
from hetero_server.run.orders import ORDERS

if TYPE_CHECKING:
    _Options = BaseModel
else:
    _Options = create_model("_Options", __base__=STRATEGIES.options())


class StrategySettings(_Options, frozen=True, use_attribute_docstrings=True):
    """How the server trains its layers."""

    preset: Literal["default", "paper"] = "default"
    """Where the settings of the method start from: their defaults, or the plain method of the
    paper."""
    strategy: Annotated[str, STRATEGIES] = "mixed"
    """How the server's layers are trained on the clients' batches."""
    order: Annotated[str, ORDERS] = "interleaved"
    """Order of the clients' batches. All but arrival make a run repeatable bit for bit with
    sequential; averaging is so in any order."""
    aggregate_weights: Literal["samples", "uniform"] = "samples"
    """What a client counts in averages: the samples it contributed, or the same as any other."""
    quarantine: int = Field(8, ge=0, le=32)
    """Outliers among a client's last 32 steps, or its last 32 pushed weights, that send it away for
    the rest of the run; 0: never."""

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        for entry in (STRATEGIES.entry(self.strategy), ORDERS.entry(self.order)):
            refusal = entry.refuses(self)
            if refusal is not None:
                raise ValueError(refusal)
        return self


class RunSettings(Settings, StrategySettings, frozen=True):
    """Where a run is kept, and gone on with."""

    run_dir: Path | None = None
    """Directory for settings, metrics and weights; by default a new one below runs/."""
    tensorboard: bool = False
    """Write event files of TensorBoard, too, into tensorboard/ of the run directory."""
    resume: Path | None = None
    """Go on with the run of this directory from its last checkpoint. Its settings hold unless given
    anew; what the result depends on stays as it is."""
    checkpoint_seconds: float = Field(60.0, ge=0)
    """Seconds between checkpoints, at least: what may be lost where the process dies."""

    def base(self) -> Mapping[str, Any]:
        """A resumed run goes on with its own settings, a new one starts from its preset."""
        if self.resume is None:
            return PRESETS[self.preset]
        return read_yaml(self.resume / SETTINGS_FILE, type(self))


class LimitSettings(BaseModel, frozen=True, use_attribute_docstrings=True):
    """How much clients may ask for; who asks for more is refused, and told which limit it met."""

    max_clients: int = Field(1000, ge=1)
    """Clients that may be here at a time."""
    max_registrations: int = Field(6000, ge=1)
    """Registrations a minute, of all clients together."""
    max_registrations_per_client: int = Field(60, ge=1)
    """Registrations a minute of one client id."""
    max_calls: int = Field(5000, ge=1)
    """Calls that may be open at a time, streams too; health checks do not count."""
    max_calls_per_client: int = Field(16, ge=4)
    """Calls of one client, known by its credential, its session or else its connection."""
    max_received_mb: int = Field(2048, ge=1)
    """MiB that received batches, predictions and weights may take until they are computed. Beyond,
    a client can have one batch here, and what else it sends has to wait."""


class MonitoringSettings(BaseModel, frozen=True, use_attribute_docstrings=True):
    """The page that shows how the run stands, and its metrics for Prometheus."""

    http: str = "auto"
    """HOST:PORT of the page and of /metrics; auto: 127.0.0.1:9464, or any free port where that is
    taken; off: neither. Over TLS where --certs is given and the address is not loopback."""
    http_tokens: Path | None = None
    """File of `name sha256-hex` lines, as of --tokens: who may look where others can reach the
    page. A browser asks for the token as a password."""
    metrics_per_client: int = Field(50, ge=0)
    """Clients that have metrics of their own, the first by their ids; the rest is in the sums."""

    @field_validator("http")
    @classmethod
    def _somewhere(cls, text: str) -> str:
        return text if text in ("auto", "off") else host_and_port(text)


class ServerSettings(RunSettings, LimitSettings, MonitoringSettings, Plan, frozen=True):
    """Train the deeper layers of a network whose first layers run on hetero-clients."""

    other_commands: ClassVar = frozenset({"token"})

    listen: str = "127.0.0.1:50051"
    """HOST:PORT to listen on; port 0 takes any free one."""
    insecure: bool = False
    """Allow an address that other machines can reach, without encryption or authentication."""
    certs: Path | None = None
    """Directory with ca.pem, server.pem and server.key; by default ~/.config/hetero-splitee/certs,
    if it exists and the address is not loopback. Clients then need a certificate, or a token."""
    tokens: Path | None = None
    """File of `client-id sha256-hex` lines: clients show a token instead of a certificate."""
    reflection: bool = False
    """Describe the services to tools such as grpcurl."""
    clients: int = Field(1, ge=1)
    """Start when this many clients are there; later ones may join."""
    credits: int = Field(4, ge=1)
    """Batches that a client may have unacknowledged; bounds the server's memory."""
    checkpoint_every: int = Field(1, ge=1)
    """Rounds between checkpoints, at least; the last round always has one."""
    patience: float = Field(60.0, gt=0)
    """Seconds that a round always waits for clients that are missing, silent or slow; longer where
    rounds usually last longer."""
    quorum: float = Field(0.5, gt=0, le=1)
    """Share of a round's clients that must be done before it goes on without the slow ones."""
    stall_timeout: float = Field(30.0, gt=0)
    """Seconds without a sign of life after which a client's connection counts as lost, and the
    server's own computing as stuck."""
    idle_timeout: float = Field(3600.0, gt=0)
    """Seconds without any client after which a run that has begun is left to be resumed."""
    or_resume: bool = False
    """Go on with the run in --run-dir where there is one, and do nothing where it is over: the same
    command starts a run, and starts it again after a crash."""
    then_serve: bool = False
    """When the run is over, go on as with --serve of it, for devices that infer."""
    serve: Path | None = None
    """Train nothing: answer predictions with the model of this finished run directory."""

    @model_validator(mode="after")
    def _where_to_resume(self) -> Self:
        if self.or_resume and self.run_dir is None:
            raise ValueError("--or-resume takes up the run of --run-dir: give one")
        return self

    def base(self) -> Mapping[str, Any]:
        """The settings of the run that was interrupted, with --or-resume and if one was."""
        run = self.run_dir
        if self.or_resume and run is not None and owner_of(run / CHECKPOINTS) is not None:
            return {**read_yaml(run / SETTINGS_FILE, type(self)), "resume": str(run)}
        return super().base()

    @field_validator("listen")
    @classmethod
    def _an_address(cls, text: str) -> str:
        return host_and_port(text)
