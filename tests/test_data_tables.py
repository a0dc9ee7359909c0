"""Rows of tables: SQLite, data frames by their protocols, JSON lines."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import sqlite3
import threading

import numpy as np
import pytest

import mlgpu
from mlgpu import data
from mlgpu.errors import DTypeError, FormatError, MissingExtraError, PositionError, ShapeError

# --- SQLite ---------------------------------------------------------------------------------------


@pytest.fixture
def people(tmp_path):
    path = tmp_path / "people # 1.db"
    with contextlib.closing(sqlite3.connect(path)) as base:
        base.executescript("""
            CREATE TABLE person (name TEXT, age INTEGER, "a ""b" REAL);
            INSERT INTO person VALUES ('Ada', 36, 1.5), ('Bob', 7, NULL), ('Cy', 50, 2.0),
                                      ('Di', 20, 0.5);
            DELETE FROM person WHERE name = 'Bob';
            CREATE VIEW old AS SELECT * FROM person WHERE age > 30;
            CREATE TABLE bare (k TEXT PRIMARY KEY, v) WITHOUT ROWID;
            CREATE TABLE tricky (rowid TEXT, v);
            INSERT INTO tricky VALUES ('x', 1), ('y', 2);
            CREATE TABLE void (v);
        """)
    return path


def test_a_table_by_rows(people):
    rows = data.SQLiteDataset(people, "person")
    assert len(rows) == 3
    assert rows[1] == {"name": "Cy", "age": 50, 'a "b': 2.0}
    assert rows[-1]["name"] == "Di"
    assert [row["name"] for row in rows] == ["Ada", "Cy", "Di"]
    assert [row["name"] for row in rows.__getitems__([2, 0, 2, -2])] == ["Di", "Ada", "Di", "Cy"]
    assert data.SQLiteDataset(people, "person", ["age"])[0] == {"age": 36}
    upper = data.SQLiteDataset(people, "person", {"name": str.upper})
    assert upper[0] == {"name": "ADA"}
    young = data.SQLiteDataset(people, "person", ["age"], where="age < ?", parameters=[40])
    assert list(young) == [{"age": 36}, {"age": 20}]
    assert [row["rowid"] for row in data.SQLiteDataset(people, "tricky")] == ["x", "y"]
    assert len(data.SQLiteDataset(people, "void")) == 0
    batch = next(iter(data.DataLoader(data.SQLiteDataset(people, "person", ["age"]),
                                      batch_size=3)))
    assert batch["age"].tolist() == [36, 50, 20]
    with pytest.raises(PositionError, match="index 3 is out of range for 3"):
        rows[3]


@pytest.mark.parametrize(("table", "options", "message"), [
    ("nobody", {}, r"no table 'nobody', but \['bare', 'person', 'tricky', 'void'\]"),
    ("person", {"columns": ["weight"]}, r"no column \['weight'\], but \['name', 'age'"),
    ("person", {"where": "weight > 1"}, "no such column: weight"),
    ("old", {}, "is a view, whose rows have no rowid; read it with SQLiteQuery"),
    ("bare", {}, "WITHOUT ROWID, whose rows")])
def test_what_a_table_must_have(people, table, options, message):
    with pytest.raises(FormatError, match=message):
        data.SQLiteDataset(people, table, **options)


def test_files_that_are_no_database(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        data.SQLiteDataset(tmp_path / "x.db", "t")
    (tmp_path / "x.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(FormatError, match="not a database"):
        data.SQLiteDataset(tmp_path / "x.db", "t")


def test_a_row_that_is_gone(people):
    rows = data.SQLiteDataset(people, "person")
    with contextlib.closing(sqlite3.connect(people)) as base, base:
        base.execute("DELETE FROM person WHERE name = 'Cy'")
    with pytest.raises(FormatError, match="the row 3 of 'person' is gone"):
        rows[1]
    with pytest.raises(FormatError, match="readonly"):
        next(iter(data.SQLiteQuery(people, "DELETE FROM person RETURNING name")))


def test_queries_stream(people):
    query = data.SQLiteQuery(people, "SELECT name AS n, age * 2 AS twice FROM person "
                                     "WHERE age > :least ORDER BY age", {"least": 10},
                             convert={"n": str.lower})
    assert list(query) == [{"n": "di", "twice": 40}, {"n": "ada", "twice": 72},
                           {"n": "cy", "twice": 100}]
    first, second = iter(query), iter(query)  # at once
    assert next(first) == next(second)
    with pytest.raises(FormatError, match="near \"SELEC\""):
        next(iter(data.SQLiteQuery(people, "SELEC 1")))
    with pytest.raises(FormatError, match="a name of its own"):
        next(iter(data.SQLiteQuery(people, "SELECT 1 AS x, 2 AS x")))
    with pytest.raises(FormatError, match=r"to convert \(\['z'\]\)"):
        next(iter(data.SQLiteQuery(people, "SELECT 1 AS x", convert={"z": str})))


def test_writing(tmp_path):
    path = tmp_path / "t.db"
    rows = [{"x": mlgpu.arange(i, dtype=mlgpu.float32), "y": np.int16(i), "z": 0.5, "t": "é",
             "b": b"\0\1", "none": None, "ok": True} for i in range(3)]
    assert data.write_sqlite(path, "first set", iter(rows)) == 3
    assert data.write_sqlite(path, "first set", rows[:1], append=True) == 1
    read = data.SQLiteDataset(path, "first set")
    assert len(read) == 4
    row = read[2]
    assert row["x"].tolist() == [0.0, 1.0]
    assert row["x"].dtype is mlgpu.float32
    assert {name: row[name] for name in ("y", "z", "t", "b", "none", "ok")} == {
        "y": 2, "z": 0.5, "t": "é", "b": b"\0\1", "none": None, "ok": 1}
    with pytest.raises(FormatError, match="append=True"):
        data.write_sqlite(path, "first set", rows)
    with pytest.raises(FormatError, match="a row has"):
        data.write_sqlite(path, "first set", [rows[0], {"x": 1}], append=True)
    with pytest.raises(DTypeError, match="'x' of 'other' cannot hold a list"):
        data.write_sqlite(path, "other", [{"x": 1}, {"x": [1]}])
    with pytest.raises(DTypeError, match="64 bits"):
        data.write_sqlite(path, "other", [{"x": 1}, {"x": 2**64}])
    assert data.SQLiteDataset.tables(path) == ["first set"]  # none or all
    assert len(data.SQLiteDataset(path, "first set")) == 4
    assert data.write_sqlite(path, "other", []) == 0


def ages(rows, out):
    out.put([row["age"] for row in rows.__getitems__([0, 1, 2])])


def test_processes_and_threads_have_their_own_connections(people):
    rows = data.SQLiteDataset(people, "person")
    assert rows[0]["age"] == 36
    assert pickle.loads(pickle.dumps(rows))[2]["age"] == 20
    loader = data.DataLoader(data.SQLiteDataset(people, "person", ["age"]), batch_size=1,
                             num_workers=1)
    assert [batch["age"].item() for batch in loader] == [36, 50, 20]
    found = []

    def read():
        found.append(rows[1]["age"])

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [50] * 3


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_leaves_its_parents_connection_alone(people):
    rows = data.SQLiteDataset(people, "person")
    held = rows._reader._local.held
    context = multiprocessing.get_context("fork")
    out = context.SimpleQueue()
    process = context.Process(target=ages, args=(rows, out))
    process.start()
    assert out.get() == [36, 50, 20]
    process.join()
    assert process.exitcode == 0
    assert rows._reader._local.held is held
    assert rows[0]["age"] == 36


def test_queries_are_shared_by_workers(people, monkeypatch):
    query = data.SQLiteQuery(people, "SELECT age FROM person ORDER BY age")
    shares = []
    for worker in range(2):
        info = data.WorkerInfo(worker, 2, 0, query)
        monkeypatch.setattr("mlgpu.data.sqlite.get_worker_info", lambda info=info: info)
        shares.append([row["age"] for row in query])
    assert shares == [[20, 50], [36]]


# --- frames ---------------------------------------------------------------------------------------


class Streamed:
    """What every frame of today offers, and nothing else."""

    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


class Interchanged:
    """What older frames offer."""

    def __init__(self, table):
        self.table = table

    def __dataframe__(self, *arguments, **options):
        return self.table.__dataframe__(*arguments, **options)


@pytest.mark.parametrize("kind", [Streamed, Interchanged, lambda table: table])
def test_frames(kind):
    pa = pytest.importorskip("pyarrow", reason="needs mlgpu[data]")
    table = pa.table({"x": [1, 2, 3], "s": ["a", None, "c"], "f": [0.5, 1.5, 2.5]})
    frame = data.FrameDataset(kind(table))
    assert len(frame) == 3
    assert frame[1] == {"x": 2, "s": None, "f": 1.5}
    assert frame.__getitems__([-1, 0]) == [frame[2], frame[0]]
    assert frame.__getitems__([]) == []
    assert list(pickle.loads(pickle.dumps(frame))) == list(frame)
    numbers = data.FrameDataset(kind(table), ["f", "x"])
    batch = next(iter(data.DataLoader(numbers, batch_size=3)))
    assert {name: values.tolist() for name, values in batch.items()} == {
        "f": [0.5, 1.5, 2.5], "x": [1, 2, 3]}
    with pytest.raises(FormatError, match=r"no column \['y'\], but \['x', 's', 'f'\]"):
        data.FrameDataset(kind(table), ["y"])
    with pytest.raises(PositionError, match="index 3"):
        frame[3]


def test_frames_of_several_pieces_lists_and_views():
    pa = pytest.importorskip("pyarrow", reason="needs mlgpu[data]")
    piece = pa.table({"v": [[1.0, 2.0], [3.0]], "s": pa.array(["a", "b"], pa.string_view())})
    frame = data.FrameDataset(Streamed(pa.concat_tables([piece, piece])))
    np.testing.assert_array_equal(frame[2]["v"], [1.0, 2.0])
    assert [row["s"] for row in frame.__getitems__([3, 0])] == ["b", "a"]


def test_what_is_no_frame(monkeypatch):
    pytest.importorskip("pyarrow", reason="needs mlgpu[data]")

    class Lazy:
        def collect(self):
            raise AssertionError

    with pytest.raises(TypeError, match=r"got Lazy; collect\(\) it first"):
        data.FrameDataset(Lazy())
    with pytest.raises(TypeError, match="got dict"):
        data.FrameDataset({"x": [1]})
    monkeypatch.setattr("mlgpu.extras.import_module", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'mlgpu\[data\]'"):
        data.FrameDataset({"x": [1]})


def missing(module):
    raise ModuleNotFoundError(name=module.partition(".")[0])


# --- JSON lines -----------------------------------------------------------------------------------


def test_json_lines(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes('{"a": 1}\r\n\n  \n[2, "é"]\n"last"'.encode())
    lines = data.JSONLinesDataset(path)
    assert list(lines) == [{"a": 1}, [2, "é"], "last"]
    assert lines[-2] == [2, "é"]
    assert pickle.loads(pickle.dumps(lines))[0] == {"a": 1}
    path.write_bytes(b"1\n\n{broken\n\xff\n")
    lines = data.JSONLinesDataset(path)
    assert lines[0] == 1
    with pytest.raises(FormatError, match=r"line 3 of .*x\.jsonl' is no JSON"):
        lines[1]
    with pytest.raises(FormatError, match="line 4"):
        lines[2]
    with pytest.raises(PositionError, match="index 3"):
        lines[3]


# --- tokens of others -----------------------------------------------------------------------------


def test_token_files_of_others(tmp_path):
    for name, tokens in (("b.bin", [4, 5, 60000]), ("a.bin", [1, 2, 3])):
        np.array(tokens, np.uint16).tofile(tmp_path / name)
    assert data.index_tokens(tmp_path) == 6
    x, y = data.TokenDataset(tmp_path, 5)[0]
    assert (x.tolist(), y.tolist()) == ([1, 2, 3, 4, 5], [2, 3, 4, 5, 60000])
    assert data.index_tokens(tmp_path, ["b.bin"]) == 3
    assert data.TokenDataset(tmp_path, 2)[0][0].tolist() == [4, 5]
    with pytest.raises(FormatError, match=r"uint32 tokens, got \{'a.bin': 6"):
        data.index_tokens(tmp_path, dtype="uint32")
    (tmp_path / "deep").mkdir()
    for files in (None, ["../a.bin"]):
        with pytest.raises(FormatError, match="deep must hold files of uint16 tokens"):
            data.index_tokens(tmp_path / "deep", files)
    with pytest.raises(DTypeError, match="int64"):
        data.index_tokens(tmp_path, dtype="int64")


# --- derived --------------------------------------------------------------------------------------


class Counted(data.Dataset):
    """Rows that tell how they were asked for."""

    def __init__(self):
        self.asked = []

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return self.__getitems__([index])[0]

    def __getitems__(self, indices):
        self.asked.append(list(indices))
        return [index * 10 for index in indices]


def test_a_batch_is_asked_for_at_once_through_what_is_derived():
    base = Counted()
    mapped = data.MappedDataset(data.Subset(base, range(5, 10)), str)
    batches = list(data.DataLoader(mapped, batch_size=3))
    assert batches == [["50", "60", "70"], ["80", "90"]]
    assert base.asked == [[5, 6, 7], [8, 9]]


def test_weights():
    base = data.TensorDataset(mlgpu.arange(4))
    generator = mlgpu.Generator().manual_seed(0)
    drawn = data.SampledDataset(base, 4000, True, generator, weights=[0, 1, 0, 3])
    counts = np.bincount([int(drawn.indices[i]) for i in range(4000)], minlength=4)
    assert counts[[0, 2]].tolist() == [0, 0]
    assert counts[3] == pytest.approx(3000, abs=120)
    alone = data.SampledDataset(base, 2, weights=mlgpu.tensor([0.0, 1.0, 0.0, 3.0]))
    assert sorted(alone.indices) == [1, 3]
    with pytest.raises(ShapeError, match="as many weights"):
        data.SampledDataset(base, 2, weights=[1.0])
    with pytest.raises(ShapeError, match="cannot draw 3 of 2 samples with a weight above 0"):
        data.SampledDataset(base, 3, weights=[0, 1, 0, 3])
