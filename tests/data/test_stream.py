"""The stream: ranks share each step, workers change nothing, a resume is the tail of the whole."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tell_lightning.data import store, stream
from tell_lightning.data.plan import Plan, PlanSource, Slot
from tell_lightning.data.stream import MicroBatches, PreparedRows, Stream
from tell_lightning.data.units import Examples, Place

PLAN = Plan(
    7,
    (
        PlanSource("t", "task", 5, 10),
        PlanSource("g", "general", 400, 61),
        PlanSource("h", "general", 90, 9),
    ),
)
fixed = settings(derandomize=True, max_examples=60)


def order(world: int, micro: int, start: int, steps: int, rank: int = 0) -> list[list[Slot]]:
    place = Place(rank, world, micro)
    units = MicroBatches(Examples(PLAN), place, start, start + steps * place.step)
    return [[slot for (slot,) in batch] for batch in units]


def whole(start: int, stop: int) -> list[Slot]:
    return list(PLAN.at(range(start, stop)))


@pytest.fixture(params=[4096, 20], ids=lambda size: f"block{size}")
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BLOCK", request.param)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("micro", [1, 2, 5, 30])
@pytest.mark.parametrize("start", [0, 1, 3])
def test_the_ranks_of_a_step_share_one_contiguous_block(world: int, micro: int, start: int) -> None:
    step, steps = world * micro, 7
    begin = start * step
    ranks = [order(world, micro, begin, steps, rank) for rank in range(world)]
    assert [len(batches) for batches in ranks] == [steps] * world
    for number in range(steps):
        parts = [batches[number] for batches in ranks]
        assert [len(part) for part in parts] == [micro] * world
        together = [slot for part in parts for slot in part]
        first = begin + number * step
        assert sorted(together) == whole(first, first + step)  # as many: they are disjoint
        for rank, part in enumerate(parts):
            assert [slot[0] for slot in part] == list(range(first + rank, first + step, world))


@fixed
@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 5), st.integers(1, 9), st.data())
def test_every_factoring_of_the_optimizer_batch_takes_the_same_examples(
    world: int, micro: int, start: int, steps: int, data: st.DataObject
) -> None:
    size = world * micro
    other = data.draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
    accumulate = size // other

    def per_step(world: int, micro: int, accumulate: int) -> list[list[Slot]]:
        ranks = [
            order(world, micro, start * size, steps * accumulate, rank) for rank in range(world)
        ]
        return [
            sorted(
                slot
                for batches in ranks
                for batch in batches[n * accumulate : (n + 1) * accumulate]
                for slot in batch
            )
            for n in range(steps)
        ]

    assert per_step(world, micro, 1) == per_step(1, other, accumulate)


@fixed
@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 25), st.data())
def test_a_resume_is_the_tail_of_the_uninterrupted_order(
    world: int, micro: int, steps: int, data: st.DataObject
) -> None:
    done, rank = data.draw(st.integers(0, steps)), data.draw(st.integers(0, world - 1))
    all_of_it = order(world, micro, 0, steps, rank)
    assert order(world, micro, done * world * micro, steps - done, rank) == all_of_it[done:]


def test_every_resume_point_of_two_cycles_and_the_edges_between() -> None:
    steps = 2 * PLAN.cycle // 4 + 2
    uninterrupted = order(1, 4, 0, steps)
    for done in range(steps):
        assert order(1, 4, done * 4, steps - done) == uninterrupted[done:]


def test_lengths_count_the_micro_batches() -> None:
    place = Place(1, 2, 4)
    left = MicroBatches(Examples(PLAN), place, 16, 80)
    assert (place.step, len(left), len(list(left))) == (8, 8, 8)
    assert len(Stream(lambda: left, PreparedRows([]), total=10)) == 10
    assert list(MicroBatches(Examples(PLAN), place, 80, 80)) == []


# Reading


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Prepare rows that say where they are from: source, row, and a length that varies."""
    folder = tmp_path_factory.mktemp("rows")
    opened = []
    for index, source in enumerate(PLAN.sources):
        ids = [[index, row, *range(row % 4)] for row in range(source.rows)]

        def build(draft: store.Draft, ids: list[list[int]] = ids) -> dict[str, Any]:
            flags = [[False] + [True] * (len(one) - 1) for one in ids]
            names = [str(row) for row in range(len(ids))]
            columns = {"input_ids": ids, "supervised": flags, "id": names, "where": names}
            draft.add([store.record_batch(columns)], {})
            return {}

        store.prepare(folder / source.name, build)
        opened.append(store.load(folder / source.name).rows)
    return opened


def deliver(rows: list[Any], start: int = 0, stop: int = 48, **workers: Any) -> list[Slot]:
    order = MicroBatches(Examples(PLAN), Place(0, 1, 4), start, stop)
    delivered = []
    for batch in Stream(lambda: order, PreparedRows(rows), total=12, **workers):
        origins = zip(
            batch.positions.tolist(), batch.sources.tolist(), batch.rows.tolist(), strict=True
        )
        for (position, source, row), ids in zip(origins, batch.input_ids, strict=True):
            assert ids[:2].tolist() == [source, row]  # the tokens are of the row that it names
            delivered.append((position, source, row))
    return delivered


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3:UserWarning")  # on two cores
@pytest.mark.parametrize(
    "workers",
    [
        {},
        {"num_workers": 1},
        {"num_workers": 1, "prefetch_factor": 7},
        {"num_workers": 3},
        {"num_workers": 3, "prefetch_factor": 1},
        {"num_workers": 3, "multiprocessing_context": "fork"},
        {"num_workers": 2, "prefetch_factor": 3, "multiprocessing_context": "fork"},
        pytest.param(
            {"num_workers": 1, "multiprocessing_context": "spawn"}, marks=pytest.mark.long
        ),
        pytest.param(
            {"num_workers": 3, "prefetch_factor": 5, "multiprocessing_context": "spawn"},
            marks=pytest.mark.long,
        ),
        pytest.param(
            {"num_workers": 2, "multiprocessing_context": "forkserver"}, marks=pytest.mark.long
        ),
    ],
    ids=str,
)
def test_workers_do_not_change_what_is_delivered(rows: list[Any], workers: dict[str, Any]) -> None:
    assert deliver(rows, **workers) == whole(0, 48)
    assert deliver(rows, start=20, **workers) == whole(20, 48)


@fixed
@given(st.integers(0, 60), st.integers(0, 30), st.integers(0, 60))
def test_units_behind_the_end_of_the_plan_are_empty(start: int, number: int, end: int) -> None:
    units = range(start, start + number)
    wanted = [whole(n, n + 1) if n < end else [] for n in units]
    assert Examples(PLAN, stop=end).at(units) == wanted
    assert Examples(PLAN).at(units) == [whole(n, n + 1) for n in units]


def test_a_last_step_is_filled_up_with_nothing(rows: list[Any]) -> None:
    order = MicroBatches(Examples(PLAN, stop=6), Place(0, 1, 4), 0, 8)
    first, last = Stream(lambda: order, PreparedRows(rows), total=2)
    assert (first.positions.tolist(), last.positions.tolist()) == ([0, 1, 2, 3], [4, 5])
    assert last.input_ids.shape[0] == 4  # as many rows as ever
    assert (last.labels[2:] == -100).all()


def test_a_stream_can_be_iterated_again(rows: list[Any]) -> None:
    units = MicroBatches(Examples(PLAN), Place(0, 1, 4), 8, 24)
    loader = Stream(lambda: units, PreparedRows(rows), total=6)
    first = [batch.positions.tolist() for batch in loader]
    assert [batch.positions.tolist() for batch in loader] == first
    assert first == [list(range(n, n + 4)) for n in (8, 12, 16, 20)]


def test_lightning_is_told_that_a_resume_is_exact(rows: list[Any]) -> None:
    from lightning.fabric.utilities.types import _Stateful  # else it warns of unreliable results

    units = MicroBatches(Examples(PLAN), Place(0, 1, 4), 8, 24)
    loader = Stream(lambda: units, PreparedRows(rows), total=6)
    assert isinstance(loader, _Stateful)
    loader.load_state_dict(loader.state_dict())
    assert [batch.positions[0].item() for batch in loader] == [8, 12, 16, 20]


def test_the_tokens_are_those_of_the_row(rows: list[Any]) -> None:
    units = [whole(0, 3), [], whole(3, 4), whole(4, 30)]
    read = PreparedRows(rows).__getitems__(units)
    assert [len(items) for items in read] == [3, 0, 1, 26]
    for unit, items in zip(units, read, strict=True):
        for slot, item in zip(unit, items, strict=True):
            _, source, row = slot
            assert list(item.input_ids) == [source, row, *range(row % 4)]
            assert list(item.supervised) == [False] + [True] * (len(item.input_ids) - 1)
            assert (item.position, item.source, item.row) == slot


def test_rows_are_read_by_a_spawned_process_too(rows: list[Any]) -> None:
    import pickle

    pickled = pickle.dumps(PreparedRows(rows))  # what spawn does
    assert len(pickled) < 10_000  # the rows stay on the disk
    units = [whole(0, 9)]
    assert pickle.loads(pickled).__getitems__(units) == PreparedRows(rows).__getitems__(units)
