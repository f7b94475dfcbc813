from __future__ import annotations

from pathlib import Path

import pytest

from hetero_common import settings
from hetero_common.agreement.plan import Plan
from hetero_common.errors import SettingsError
from hetero_common.records.checkpoints import CHECKPOINTS, Checkpoint, CheckpointStore
from hetero_common.settings import Settings
from hetero_server.settings import ServerSettings

pytestmark = pytest.mark.usefixtures("unset_settings")


def server(*flags: str) -> ServerSettings:
    return settings.load(ServerSettings, flags, "hetero-server")


def refusal(*flags: str, command: type[Settings] = ServerSettings) -> str:
    with pytest.raises(SettingsError) as caught:
        settings.load(command, flags, "hetero")
    sentence = str(caught.value)
    assert len(sentence.splitlines()) == 1
    return sentence


def test_a_resumed_run_goes_on_with_its_settings_whatever_its_preset_has_become() -> None:
    Path("run").mkdir()
    Path("run", "settings.yaml").write_text("preset: paper\nbatch_size: 6\nexit_head: grid\n")
    resumed = server("--resume", "run")
    assert (resumed.preset, resumed.batch_size, resumed.exit_head) == ("paper", 6, "grid")
    assert resumed.client_aggregation == Plan().client_aggregation


def test_mixed_batches_have_no_relay() -> None:
    assert "there is no --order relay" in refusal("--strategy", "mixed", "--order", "relay")


def test_a_run_that_is_not_resumed_starts_from_its_preset() -> None:
    assert server("--preset", "paper").strategy == "sequential"
    assert server("--preset", "paper", "--strategy", "averaging").strategy == "averaging"
    assert server().strategy == "mixed"


def test_settings_of_a_resumed_run_can_be_given_anew() -> None:
    Path("run").mkdir()
    Path("run", "settings.yaml").write_text("patience: 7\nquorum: 0.25\n")
    resumed = server("--resume", "run", "--patience", "9")
    assert (resumed.patience, resumed.quorum) == (9, 0.25)


def test_a_folder_without_settings_cannot_be_resumed() -> None:
    assert refusal("--resume", "nowhere") == (
        "settings file nowhere/settings.yaml cannot be read: No such file or directory"
    )


# Start or resume.


def test_who_would_resume_says_which_run() -> None:
    assert refusal("--or-resume") == "--or-resume takes up the run of --run-dir: give one"


def test_a_run_that_was_not_interrupted_is_started() -> None:
    chosen = server("--or-resume", "--run-dir", "run", "--patience", "9")
    assert (chosen.resume, chosen.patience) == (None, 9)


def test_a_run_that_was_interrupted_is_resumed_with_its_settings() -> None:
    CheckpointStore(Path("run") / CHECKPOINTS, "run-1", "f").write(Checkpoint(0, {}))
    Path("run", "settings.yaml").write_text("patience: 7\nbatch_size: 6\n")
    chosen = server("--or-resume", "--run-dir", "run")
    assert (chosen.resume, chosen.patience, chosen.batch_size) == (Path("run"), 7, 6)


# Where to listen, and how much to take.


@pytest.mark.parametrize("http", ["auto", "off", "127.0.0.1:0"])
def test_the_page_is_somewhere_or_nowhere(http: str) -> None:
    assert server("--http", http).http == http


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (("--http", "on"), "http"),
        (("--listen", "50051"), "listen"),
        (("--quarantine", "33"), "quarantine"),
        (("--max-calls-per-client", "3"), "max-calls-per-client"),
        (("--quorum", "0"), "quorum"),
        (("--patience", "0"), "patience"),
        (("--aggregate-every", "0"), "aggregate-every"),
    ],
)
def test_what_no_server_can_do_is_refused(flags: tuple[str, ...], name: str) -> None:
    assert refusal(*flags).startswith(f"setting {name}: ")


def test_a_client_can_always_train_predict_and_ask_at_a_time() -> None:
    """Train, PushState or PullState, Predict and GetStatus."""
    assert server("--max-calls-per-client", "4").max_calls_per_client == 4
