from __future__ import annotations

from hetero_common.agreement.control import Evaluation, OperatingPoint


def test_an_evaluation_is_recorded_with_accuracies_per_class() -> None:
    evaluation = Evaluation(
        *(3, 10, 0.5, 0.6, 0.4, 0.7, 0.3),
        curve=(OperatingPoint(0.4, 0.7, 0.3),),
        class_samples=(4, 6, 0),
        exit_class_right=(1, 3, 0),
        server_class_right=(2, 6, 0),
    )
    record = evaluation.record()
    assert record["class_samples"] == [4, 6, 0]
    assert record["exit_class_accuracy"] == [0.25, 0.5, None]
    assert record["server_class_accuracy"] == [0.5, 1.0, None]
    assert record["curve"] == (OperatingPoint(0.4, 0.7, 0.3),)
    assert not any(name.endswith("_right") and "class" in name for name in record)


def test_who_tells_nothing_of_classes_has_nothing_recorded_of_them() -> None:
    record = Evaluation(3, 10, 0.5, 0.6, 0.4, 0.7, 0.3).record()
    names = ("class_samples", "exit_class_accuracy", "server_class_accuracy")
    assert [record[name] for name in names] == [None, None, None]
    assert (record["round"], record["samples"], record["exit_accuracy"]) == (3, 10, 0.5)
