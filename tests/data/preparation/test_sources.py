"""Source files: tables of every format, downloads that break off, archives that mean harm."""

import gzip
import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from metashot.base.errors import DataError
from metashot.data.recipes.twins import number_of
from metashot.data.sources.archive import extract_zip
from metashot.data.sources.download import TransferLimits, download
from metashot.data.sources.hub import CONVERSION, locate_in_folder, locate_on_hub
from metashot.data.sources.layout import TableLayout
from metashot.data.sources.tables import FORMATS, read_rows

CONTENT = bytes(range(256)) * 400


@dataclass
class Server:
    """A loopback server that misbehaves on request, and remembers what it was asked."""

    address: str = ""
    ranges: list[str | None] = field(default_factory=list)
    cut_first_after: int | None = None
    asleep: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.ranges.append(self.headers.get("Range"))
            if self.path == "/missing.bin":
                self.send_error(404)
                return
            if self.path == "/slow.bin":
                state.asleep.wait(10)
                return
            start = int(self.headers["Range"][6:-1]) if self.headers.get("Range") else 0
            self.send_response(206 if start else 200)
            self.send_header("ETag", '"one"')
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            if state.cut_first_after is not None and start == 0:
                self.wfile.write(CONTENT[: state.cut_first_after])
                self.close_connection = True
                return
            self.wfile.write(CONTENT[start:])

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Listener(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Clients that hang up are part of these tests."""

    listener = Listener(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    state.address = f"http://127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield state
    state.asleep.set()
    listener.shutdown()
    listener.server_close()
    thread.join()


def test_a_download_arrives_whole_and_is_not_repeated(server: Server, tmp_path: Path) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    for _ in range(2):
        path = download(f"{server.address}/file.bin", tmp_path / "file.bin", digest)
        assert path.read_bytes() == CONTENT
    assert len(server.ranges) == 1
    assert [left.name for left in tmp_path.iterdir()] == ["file.bin"]


def test_a_truncated_transfer_goes_on_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.cut_first_after = 1000
    path = download(f"{server.address}/file.bin", tmp_path / "file.bin", hashlib.sha256(CONTENT).hexdigest())
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-"]


def test_a_transfer_that_stays_truncated_is_kept_for_the_next_call(server: Server, tmp_path: Path) -> None:
    server.cut_first_after = 1000
    with pytest.raises(DataError, match=r"ended \d+ bytes early \(1 attempts\).*it goes on where it stopped"):
        download(f"{server.address}/file.bin", tmp_path / "file.bin", limits=TransferLimits(attempts=1))
    assert not (tmp_path / "file.bin").exists()
    assert download(f"{server.address}/file.bin", tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-"]


def test_a_missing_file_is_refused_at_once(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the server answers 404"):
        download(f"{server.address}/missing.bin", tmp_path / "missing.bin")
    assert len(server.ranges) == 1


def test_a_wrong_checksum_leaves_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sha256 is [0-9a-f]{64}, not 0000"):
        download(f"{server.address}/file.bin", tmp_path / "file.bin", "0" * 64)
    assert not list(tmp_path.iterdir())


def test_a_slow_answer_ends_with_its_limit(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no answer within 0\.2 s"):
        download(
            f"{server.address}/slow.bin",
            tmp_path / "f",
            limits=TransferLimits(timeout_seconds=0.2, attempts=1),
        )


def test_a_file_larger_than_allowed_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is larger than 1000 bytes"):
        download(f"{server.address}/file.bin", tmp_path / "f", limits=TransferLimits(max_bytes=1000))


def test_an_unreachable_server_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be fetched"):
        download("http://127.0.0.1:9/file.bin", tmp_path / "f", limits=TransferLimits(attempts=1))


def zip_of(path: Path, members: dict[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content, compress_type=zipfile.ZIP_DEFLATED)
    return path


def test_an_honest_archive_unpacks(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", {"task/train.tsv": b"x\ty\n", "task/dev.tsv": b""})
    folder = extract_zip(archive, tmp_path / "out")
    assert (folder / "task/train.tsv").read_bytes() == b"x\ty\n"


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "..\\evil.txt", "C:/evil.txt"]
)
def test_a_member_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="lies outside the folder"):
        extract_zip(zip_of(tmp_path / "a.zip", {name: b"x"}), tmp_path / "deep/out")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip", "deep"]


def test_a_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with pytest.raises(DataError, match='member "link" is a link'):
        extract_zip(zip_of(tmp_path / "a.zip", {link: b"/etc/passwd"}), tmp_path / "out")


def test_an_oversized_expansion_is_refused(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", {"zeros": b"\0" * (8 << 20)})
    with pytest.raises(DataError, match=r'member "zeros" expands \d+-fold'):
        extract_zip(archive, tmp_path / "out")
    with pytest.raises(DataError, match="unpacks to more bytes than allowed"):
        extract_zip(archive, tmp_path / "out", max_bytes=1 << 20, max_ratio=1e9)
    assert not (tmp_path / "out").exists()


def test_a_broken_archive_is_named(tmp_path: Path) -> None:
    whole = zip_of(tmp_path / "a.zip", {"x": bytes(range(256)) * 50}).read_bytes()
    (tmp_path / "a.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a.zip: is no whole zip file"):
        extract_zip(tmp_path / "a.zip", tmp_path / "out")


ROWS = [{"text": 'one, "quoted"', "label": 0}, {"text": "two\nlines", "label": 1}]


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    feather.write_feather(pa.Table.from_pylist(ROWS), str(tmp_path / "a.arrow"), compression="uncompressed")
    pd.DataFrame(ROWS).to_excel(tmp_path / "a.xlsx", index=False)
    (tmp_path / "a.csv").write_text('text,label\n"one, ""quoted""",0\n"two\nlines",1\n', encoding="utf-8")
    (tmp_path / "a.tsv").write_text('text\tlabel\n"one, ""quoted"""\t0\n"two\nlines"\t1\n', encoding="utf-8")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    for one in FORMATS.values():
        if one.name != "lines":
            (path,) = (
                tmp_path / f"a{ending}" for ending in one.endings if (tmp_path / f"a{ending}").exists()
            )
            rows = [row | {"label": number_of(row["label"])} for row in read_rows(path)]
            assert rows == ROWS, one.name
    (tmp_path / "a.txt").write_bytes(b"one\rtwo\r\nthree")
    assert [row["line"] for row in read_rows(tmp_path / "a.txt", TableLayout())] == [
        "one",
        "two",
        "three",
    ]


def test_only_the_named_columns_are_read_from_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"a": 1, "b": 2}]), tmp_path / "a.parquet")
    assert list(read_rows(tmp_path / "a.parquet", TableLayout(columns=("b",)))) == [{"b": 2}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"text,label\nx\n", r"a.csv:2: 1 values for 2 columns \(text, label\)"),
        (
            "a.csv",
            b"text,label\n\xff,1\n",
            r"a.csv:2: byte 0xff is not UTF-8; it is likely Windows-1252, where it reads 'ÿ,1'",
        ),
        ("a.jsonl", b'{"a": 1}\n{"a"\n', r"a.jsonl:2: malformed JSON: .* at column 5"),
        ("a.jsonl", b"[1]\n", r"a.jsonl:1: a record must be an object, got list"),
        ("a.json", b'"a"', r"a.json: begins with '\"': it is no list of objects"),
        ("a.parquet", b"PAR1nonsense", r"a.parquet: is no whole parquet file"),
        ("a.dat", b"", r'a.dat: cannot tell the format of ".dat" files'),
    ],
)
def test_broken_tables_are_named_with_their_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_rows(tmp_path / name, TableLayout()))


@pytest.mark.parametrize(
    "layout",
    [
        "cfg/train-00000-of-00001.parquet",
        "cfg/train/0000.parquet",
        "data/train-00000-of-00001-abc.parquet",
        "train.jsonl",
    ],
)
def test_hub_layouts_are_known(tmp_path: Path, layout: str) -> None:
    (tmp_path / layout).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / layout).touch()
    (tmp_path / "train_r1.jsonl").touch()
    found = locate_in_folder(tmp_path, "cfg", "train")
    assert found is not None
    assert found.paths == (tmp_path / layout,)
    assert locate_in_folder(tmp_path, "cfg", "validation") is None


def test_a_partial_conversion_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cfg/partial-train").mkdir(parents=True)
    with pytest.raises(DataError, match="holds only a part of train"):
        locate_in_folder(tmp_path, "cfg", "train")


def test_the_datasets_library_resolves_a_repository_with_its_card(tmp_path: Path) -> None:
    """The path taken for the hub, on a local repository: configurations come from the card's YAML."""
    for config in ("one", "two"):
        (tmp_path / config).mkdir()
        pq.write_table(
            pa.Table.from_pylist([{"text": config}]), tmp_path / config / "train-00000-of-00001.parquet"
        )
    card = "configs:\n" + "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}/train-*\n"
        for name in ("one", "two")
    )
    (tmp_path / "README.md").write_text(f"---\n{card}---\n")
    located = locate_on_hub(str(tmp_path), "two", "train", None)
    assert [row for path in located.paths for row in read_rows(path, TableLayout())] == [{"text": "two"}]
    with pytest.raises(DataError, match=r'has no split "dev" \(it has: train'):
        locate_on_hub(str(tmp_path), "two", "dev", None)
    with pytest.raises(DataError, match="three"):
        locate_on_hub(str(tmp_path), "three", "train", None)


@pytest.mark.parametrize("revision", [None, CONVERSION])
def test_without_network_the_hub_is_an_error_of_ours(revision: str | None) -> None:
    with pytest.raises(DataError, match=r"nobody/nothing.*\(see the recipe's fallbacks"):
        locate_on_hub("nobody/nothing", None, "train", revision)


def test_a_compressed_stream_is_not_taken_for_a_zip(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb") as stream:
        stream.write(b"text")
    (tmp_path / "a.zip").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="is no whole zip file"):
        extract_zip(tmp_path / "a.zip", tmp_path / "out")
