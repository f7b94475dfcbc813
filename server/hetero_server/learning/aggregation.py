"""What happens to the weights between two rounds: aggregation, and at the end the whole model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hetero_common.tensors.aggregation import LayerStates, cross_layer_average
from hetero_common.tensors.weights import Weights
from hetero_server.learning.outliers import Outlier
from hetero_server.learning.strategies import Strategy


@dataclass(frozen=True)
class Contribution:
    """A client's part in a boundary.

    Attributes:
        weight: Its weight in the averages, e.g. samples since the last aggregation.
        pushed: Layers 1..cut_layer and the exit after it; None unless the round asked for them.
        steps: How many steps of the round were applied.
    """

    client_id: str
    cut_layer: int
    weight: float
    pushed: Weights | None
    steps: int = 0


@dataclass(frozen=True)
class BoundaryResult:
    """Outcome of a boundary.

    Attributes:
        aggregated: Whether anything was averaged.
        shared: Averaged layers and exits that clients are to pull; None if they keep their own.
        model: The assembled full model, after the last round.
        norms: Per client, how far what it pushed has moved.
        left_out: Whose pushed weights are in none of these, and why.
    """

    aggregated: bool
    shared: Weights | None
    model: Weights | None
    norms: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    left_out: Mapping[str, Outlier] = field(default_factory=dict)


def cross_boundary(
    strategy: Strategy,
    contributions: Sequence[Contribution],
    round_: int,
    *,
    average_clients: bool,
    last: bool,
) -> BoundaryResult:
    """Average every layer over all its copies, on clients and on the server, and write them back.

    A client's copies take part with `average_clients`; the server's as the strategy says.
    """
    copies = strategy.copies(round_, last)
    weights = [contribution.weight for contribution in contributions]
    pushed = [contribution.pushed or Weights() for contribution in contributions]
    held = [copies.get(contribution.client_id, Weights()) for contribution in contributions]
    if average_clients:
        held = [other.joined(own) for other, own in zip(held, pushed, strict=True)]
    averaged = Weights(
        cross_layer_average([each.layers for each in held], weights),
        cross_layer_average([each.exits for each in held], weights),
    )
    if copies:
        strategy.adopt(averaged)
    shared = averaged if average_clients else None
    model = assemble(strategy, contributions, shared) if last else None
    return BoundaryResult(bool(copies) or average_clients, shared, model)


def assemble(
    strategy: Strategy, contributions: Sequence[Contribution], shared: Weights | None
) -> Weights:
    """One whole model: the prefix of one client, the server's layers after its cut, all exits.

    The prefix is that of the client with the shallowest cut (of those the one with most samples; a
    client that was left behind in this round, or whose weights were left out, has none to give),
    because the server's layers after that cut were trained on its activations; an average of
    prefixes that were never averaged in training would be nobody's model.
    """
    whole = [contribution for contribution in contributions if contribution.pushed is not None]
    chosen = min(whole, key=lambda c: (c.cut_layer, -c.weight, c.client_id))
    exits: LayerStates = {}
    for contribution in (*contributions, chosen):  # its own exit belongs to its prefix
        exits |= (contribution.pushed or Weights()).exits
    prefix = (chosen.pushed or Weights()).layers
    if shared is not None:
        prefix = {number: shared.layers[number] for number in prefix}
        exits = shared.exits
    suffix = {k: state for k, state in strategy.layers().items() if k > chosen.cut_layer}
    return Weights(prefix | suffix, exits)
