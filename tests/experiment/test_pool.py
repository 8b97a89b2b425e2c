import os
from pathlib import Path

import pytest
from pool_work import Piece, work

from tell_lightning.experiment import pool


def pieces(folder: Path, *values: str) -> list[Piece]:
    return [Piece(folder / f"{index}.log", value) for index, value in enumerate(values)]


def test_a_process_takes_one_piece_after_the_other_and_its_output_goes_to_their_logs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    works = pieces(tmp_path, "a", "b", "raise", "exit", "c")
    found = list(pool.run(work, iter(works), [{"OF_THE_PROCESS": "1"}]))
    assert [ended.work.value for ended in found] == ["a", "b", "raise", "exit", "c"]
    assert [ended.reason for ended in found] == [
        *(None, None),
        "LookupError: no such thing",
        "SystemExit: 3",
        None,
    ]
    values = [ended.value for ended in found if ended.value]
    assert [value[0] for value in values] == ["A", "B", "C"]
    assert len({value[1] for value in values}) == 1
    assert {value[2] for value in values} == {"1"}
    assert "OF_THE_PROCESS" not in os.environ
    assert works[1].log.read_text() == "working on b\n"
    assert "no such thing" in works[2].log.read_text()
    assert capfd.readouterr().out == ""


def test_a_process_that_ends_fails_its_work_alone_and_another_goes_on(tmp_path: Path) -> None:
    works = pieces(tmp_path, "a", "die", "b", "kill", "c")
    found = list(pool.run(work, iter(works), [{"OF_THE_PROCESS": "1"}]))
    assert [ended.value[0] for ended in found if ended.value] == ["A", "B", "C"]
    assert len({ended.value[1] for ended in found if ended.value}) == 3
    assert [ended.reason for ended in found if ended.reason] == [
        "the process ended with exit code 9\nworking on die",
        "the process was killed by SIGKILL, as a machine does that is out of memory\n"
        "working on kill",
    ]


def test_as_many_processes_work_at_a_time_as_there_are_environments(tmp_path: Path) -> None:
    environments = [{"OF_THE_PROCESS": name} for name in "12"]
    found = list(pool.run(work, iter(pieces(tmp_path, *"abcd")), environments))
    assert sorted(ended.value[0] for ended in found) == ["A", "B", "C", "D"]
    assert {ended.value[2] for ended in found} == {"1", "2"}


def test_processes_end_with_the_loop_that_is_left(tmp_path: Path) -> None:
    running = pool.run(work, iter(pieces(tmp_path, "a", "b")), [{}])
    pid = next(running).value[1]
    running.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_reason_shows_the_last_lines_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("a\n\nb\nc\nd\n \ne\nf\n")
    assert pool.last_lines(log) == "b\nc\nd\ne\nf"
    assert pool.last_lines(tmp_path / "none") == ""
