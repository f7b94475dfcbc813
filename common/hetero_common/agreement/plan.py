"""What both sides must agree on. The server owns it; GetStatus tells it to clients."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator

from hetero_common.compute.augmentation import AUGMENTATIONS
from hetero_common.compute.optimizers import OPTIMIZERS
from hetero_common.compute.sampling import steps_per_epoch
from hetero_common.compute.schedules import SCHEDULES, StepAt
from hetero_common.models import normalization
from hetero_common.models.exits import EXIT_HEADS
from hetero_common.models.networks import MODELS
from hetero_common.models.normalization import NORMALIZATIONS
from hetero_common.tensors.codec import WIRE_DTYPES

Feedback = Literal["none", "gradient", "logits"]


class Plan(
    BaseModel, extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
):
    """The agreement of a run; every field is also a flag of hetero-server and hetero-sim."""

    model: Annotated[str, MODELS] = "resnet18"
    """The network."""
    width: int = Field(64, ge=1)
    """Channels of the model's first stage; the deeper stages scale with it."""
    stem: Literal["cifar", "imagenet"] = "cifar"
    """First layer: 3x3 stride 1 for small images, or 7x7 stride 2 with pooling for 96x96 and up."""
    image_size: int = Field(32, ge=4)
    """Pixels per side; clients resize and center-crop what they have."""
    classes: int = Field(10, ge=2)
    """Number of classes."""
    normalization: Annotated[str, NORMALIZATIONS] = "cifar10"
    """Mean and deviation of the pixels, by which they are scaled."""
    augment: Annotated[str, AUGMENTATIONS] = "crop-flip"
    """Random changes of the training images."""
    batch_size: int = Field(8, ge=2)
    """Images per mini-batch of a client; with mixed, a step of the server has those of all."""
    rounds: int = Field(5000, ge=1)
    """Rounds until the run ends."""
    steps_per_round: int = Field(1, ge=0)
    """Mini-batches per client and round; 0: one pass over the client's shard."""
    optimizer: Annotated[str, OPTIMIZERS] = "sgd"
    """The learning rule, the same on both sides."""
    client_lr: float = Field(0.1, gt=0)
    """Learning rate of prefix and exit head."""
    server_lr: float = Field(0.1, gt=0)
    """Learning rate of the server's layers."""
    lr_schedule: Annotated[str, SCHEDULES] = "cosine"
    """How the learning rates go over the run."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of SGD."""
    weight_decay: float = Field(5e-4, ge=0)
    """Decay of convolution and linear weights; biases and BatchNorm are not decayed."""
    grad_clip: float = Field(20.0, ge=0)
    """Largest norm of one step's gradient, per side; longer ones are scaled down to it. Honest
    training hardly ever meets the default; 0: no limit."""
    exits: str = "3,4,5"
    """Where a client has exits beside the one after its cut layer: nowhere (last), after each layer
    of its prefix (all), or after these layers of it, such as 3,4,5."""
    exit_head: Annotated[str, EXIT_HEADS] = "deep"
    """What an exit makes of an activation."""
    exit_weight: float = Field(1.0, ge=0)
    """Weight of the exit's loss on the client; 0 only makes sense with gradient feedback."""
    feedback: Feedback = "none"
    """What the server returns per step: nothing, its gradient, or its logits for distillation."""
    distill_weight: float = Field(0.5, ge=0)
    """Weight of the distillation loss with logits feedback."""
    logit_adjustment: float = Field(0.0, ge=0, le=10)
    """Temperature of logit adjustment against label skew: the training losses of exits and server
    add this times the logarithm of the class's share in the client's shard; 0: they do not."""
    client_aggregation: Literal["none", "round"] = "round"
    """Average the clients' copies of each layer and exit at the end of a round, or never."""
    eval_every: int = Field(0, ge=0)
    """Rounds between evaluations; 0: only at the end, where there always is one."""
    wire: Annotated[str, WIRE_DTYPES] = "int8"
    """How activations travel, and what the server returns for them."""
    weights_wire: Literal["fp32", "bf16"] = "bf16"
    """How the weights travel that clients push where they are averaged: fp32 exactly, bf16 as what
    the round has changed of them, in half the bytes."""
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    """Arithmetic of both sides; auto: bf16 where the hardware multiplies it faster."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of weights, shards, shuffling, augmentation and orders."""

    @field_validator("normalization")
    @classmethod
    def _known_normalization(cls, text: str) -> str:
        return normalization.check(text)

    @field_validator("exits")
    @classmethod
    def _known_exits(cls, text: str) -> str:
        if text not in ("last", "all") and not re.fullmatch(r"[1-9]\d{0,3}(,[1-9]\d{0,3})*", text):
            raise ValueError("write last, all, or layers separated by commas, such as 3,4,5")
        return text

    def plan(self) -> Plan:
        """The agreement alone, of settings that hold it among others."""
        return Plan(**{name: getattr(self, name) for name in Plan.model_fields})

    @property
    def predict_rows(self) -> int:
        """Largest batch of a prediction, so that its answer fits one frame of 1 MiB."""
        return max(1, min(256, ((1 << 20) - 64) // (4 * self.classes)))

    def steps_for(self, shard_size: int) -> int:
        """Mini-batches that a client with `shard_size` images trains per round."""
        return self.steps_per_round or steps_per_epoch(shard_size, self.batch_size)

    def learning_rate(self, base: float, at: StepAt) -> float:
        """Learning rate of one step; a pure function, so that a resumed run continues exactly."""
        return base * SCHEDULES[self.lr_schedule](at.progress(self.rounds))

    def exit_layers(self, cut_layer: int) -> list[int]:
        """Return the layers after which a client has exits; it answers from the last one."""
        return [k for k in range(1, cut_layer + 1) if k == cut_layer or self.has_exit_after(k)]

    def has_exit_after(self, layer: int) -> bool:
        """Whether all that hold this layer have an exit after it, wherever they are cut."""
        if self.exits in ("last", "all"):
            return self.exits == "all"
        return layer in {int(number) for number in self.exits.split(",")}

    def evaluates_after(self, round_: int) -> bool:
        """Whether clients evaluate at the end of `round_`."""
        due = self.eval_every > 0 and (round_ + 1) % self.eval_every == 0
        return due or self.is_last(round_)

    @property
    def averages_clients(self) -> bool:
        """Whether the clients' layers are averaged after each round."""
        return self.client_aggregation == "round"

    def pushes_after(self, round_: int) -> bool:
        """Whether clients send their weights at the end of `round_`."""
        return self.averages_clients or self.is_last(round_)

    @property
    def push_dtype(self) -> str:
        """The dtype of pushed weights: narrow where they are averaged, and pushed as changes."""
        return self.weights_wire if self.averages_clients else "fp32"

    def is_last(self, round_: int) -> bool:
        """Whether the run ends with `round_`."""
        return round_ + 1 >= self.rounds
