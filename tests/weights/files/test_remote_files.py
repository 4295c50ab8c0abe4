"""Remote checkpoints cost the layers that are read; a server is believed no more than a file."""

import json
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from fixtures.machines.file_servers import FileServer
from fixtures.machines.processes import unused_port
from fixtures.weights.checkpoints import STATE, check_values, write_shards
from fixtures.weights.damaged_models import edited, model
from safetensors.torch import save, save_file

import wwopt
from wwopt.cli import main
from wwopt.weights.files.remote_files import is_remote, join_url, show_url
from wwopt.weights.matrices import locate, read_weights
from wwopt.weights.stored_tensors import WeightsError

fsspec = pytest.importorskip("fsspec", reason="needs the extra remote")
pytest.importorskip("aiohttp", reason="needs the extra remote")


def serve_folder(server: FileServer, folder: Path) -> str:
    """Serve the files of a folder under /model."""
    for file in folder.iterdir():
        server.files[f"/model/{file.name}"] = file.read_bytes()
    return f"{server.address}/model"


def header_of(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


def test_one_layer_costs_the_bytes_of_one_layer(file_server: FileServer) -> None:
    content = save(model())
    file_server.files["/w.safetensors"] = content
    weights = read_weights(f"{file_server.address}/w.safetensors")
    assert file_server.sent == header_of(content)
    assert len(file_server.asked) == 2
    local = model()["fc3.weight"]
    (matrix,) = [matrix for matrix in weights.matrices if matrix.name == "fc3"]
    assert torch.equal(matrix.read()[0], local)
    assert file_server.sent == header_of(content) + local.nbytes
    assert len(file_server.asked) == 3


def test_the_command_reads_the_layers_that_it_is_asked_for(file_server: FileServer) -> None:
    content = save(model())
    file_server.files["/w.safetensors"] = content
    url = f"{file_server.address}/w.safetensors"
    done = CliRunner().invoke(main, ["analyze", url, "--layers", "head", "--json"])
    assert done.exit_code == 0, done.output
    assert list(json.loads(done.stdout)) == [url]
    assert file_server.sent == header_of(content) + model()["head.weight"].nbytes


@pytest.mark.parametrize("index", ["", "/model.safetensors.index.json"])
def test_a_sharded_folder_costs_its_headers(
    file_server: FileServer, tmp_path: Path, index: str
) -> None:
    write_shards(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    url = serve_folder(file_server, tmp_path)
    weights = read_weights(f"{url}{index}")
    assert weights.model_type == "llama"
    small = sum(path.stat().st_size for path in tmp_path.glob("*.json"))
    headers = sum(header_of(path.read_bytes()) for path in tmp_path.glob("*.safetensors"))
    assert file_server.sent <= headers + small + 1  # and a byte to see whether there is an index
    check_values(url)  # type: ignore[arg-type]


def test_a_folder_with_one_file_and_the_gate(file_server: FileServer, tmp_path: Path) -> None:
    save_file(model(), tmp_path / "model.safetensors")
    url = serve_folder(file_server, tmp_path)
    assert wwopt.check(tmp_path, url).passed
    file_server.files["/model/model.safetensors"] = save(edited(lambda w: w * 4.0, "fc2"))
    assert wwopt.check(tmp_path, url).broken == {"fc2": "scaled by 4"}


def test_a_file_system_in_memory_is_read_too() -> None:
    memory = fsspec.filesystem("memory")
    try:
        memory.pipe("/m/model.safetensors", save(STATE))
        memory.pipe("/m/half.safetensors", save(STATE)[:-8])
        check_values("memory://m")  # type: ignore[arg-type]
        check_values("memory://m/model.safetensors")  # type: ignore[arg-type]
        assert not read_weights("memory://m").in_files
        with pytest.raises(WeightsError, match="memory://m holds one model under no key"):
            read_weights("memory://m", key="ema")
        with pytest.raises(WeightsError, match=r"memory://m/half.safetensors is no sound"):
            read_weights("memory://m/half.safetensors")
        with pytest.raises(WeightsError, match="memory://none holds no checkpoint"):
            read_weights("memory://none")
    finally:
        memory.rm("/m", recursive=True)


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b"\xff" * 8, "is no sound safetensors file: it has 8 bytes, and starts with ff ff"),
        (b"", "it has 0 bytes, and starts with nothing"),
        (b"abc", "it has 3 bytes"),
        ((10**7).to_bytes(8, "little") + b"{}", "it has 10 bytes"),
        ((2).to_bytes(8, "little") + b"[]", "no sound safetensors file"),
        (save(STATE)[:-8], "no sound safetensors file"),
        (save(STATE) + bytes(8), "no sound safetensors file"),
    ],
)
def test_a_broken_remote_header_is_refused_as_a_local_one_is(
    file_server: FileServer, header: bytes, why: str
) -> None:
    file_server.files["/w.safetensors"] = header
    with pytest.raises(WeightsError, match=why) as said:
        read_weights(f"{file_server.address}/w.safetensors")
    assert file_server.address in str(said.value)  # and not the local copy of its header


def test_a_server_that_does_not_read_ranges_is_told_before_it_sends_all(
    file_server: FileServer,
) -> None:
    file_server.files["/w.safetensors"] = save(STATE)
    file_server.ranges = False
    with pytest.raises(WeightsError, match="its server does not read ranges of bytes; download"):
        read_weights(f"{file_server.address}/w.safetensors")


def test_more_and_fewer_bytes_than_were_asked_for(file_server: FileServer) -> None:
    file_server.files["/w.safetensors"] = save(STATE)
    url = f"{file_server.address}/w.safetensors"
    file_server.surplus = 5_000_000
    check_values(url)  # type: ignore[arg-type]
    (matrix, *_) = read_weights(url).matrices
    file_server.surplus, file_server.missing = 0, 3
    with pytest.raises(WeightsError, match=r"has 45 of the bytes \d+ to \d+; it changed"):
        matrix.read()
    file_server.files["/w.safetensors"] = b"short"
    file_server.missing = 0
    with pytest.raises(WeightsError, match=r"has 0 of the bytes"):
        matrix.read()
    del file_server.files["/w.safetensors"]
    with pytest.raises(WeightsError, match=r"has 0 of the bytes"):
        matrix.read()


@pytest.mark.parametrize(
    ("target", "scheme"),
    [
        ("https://127.0.0.1:9/w.safetensors", "https"),
        ("file:///etc/passwd", "file"),
        ("ftp://127.0.0.1/w", "ftp"),
    ],
)
def test_a_redirect_to_another_scheme_is_refused(
    file_server: FileServer, target: str, scheme: str
) -> None:
    file_server.redirects["/w.safetensors"] = target
    with pytest.raises(WeightsError, match=rf"redirects from http to {scheme}, which is refused"):
        read_weights(f"{file_server.address}/w.safetensors")


def test_a_redirect_within_a_scheme_is_followed(file_server: FileServer) -> None:
    file_server.files["/there"] = save(STATE)
    file_server.redirects["/w.safetensors"] = "/there"
    check_values(f"{file_server.address}/w.safetensors")  # type: ignore[arg-type]
    file_server.redirects["/w.safetensors"] = "/w.safetensors"
    with pytest.raises(WeightsError, match="TooManyRedirects"):
        read_weights(f"{file_server.address}/w.safetensors")


def test_passwords_and_signatures_are_not_shown(file_server: FileServer) -> None:
    port = file_server.address.rpartition(":")[2]
    url = f"http://me:secret@127.0.0.1:{port}/w.safetensors?signature=s3cret"
    assert show_url(url) == f"http://127.0.0.1:{port}/w.safetensors"
    for command in (["analyze", url], ["check", url, url]):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 2 and "does not exist, or may not be read" in done.stderr
        assert "secret" not in done.output and "s3cret" not in done.output
    file_server.files["/w.safetensors"] = save(model())
    done = CliRunner().invoke(main, ["analyze", url, "--json", "--layers", "head"])
    assert done.exit_code == 0 and "secret" not in done.output and "s3cret" not in done.output
    assert file_server.asked[-1][0] == "/w.safetensors?signature=s3cret"


def test_a_server_that_fails_or_is_not_there_is_one_line(file_server: FileServer) -> None:
    file_server.statuses["/w.safetensors"] = 500
    with pytest.raises(WeightsError, match=r"cannot be read: ClientResponseError: 500"):
        read_weights(f"{file_server.address}/w.safetensors")
    with pytest.raises(WeightsError, match=r"cannot be read: Client.*Error") as said:
        read_weights(f"http://127.0.0.1:{unused_port()}/w.safetensors")
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("simplecache::http://127.0.0.1:9/w.safetensors", "chains several file systems"),
        ("file:///w.safetensors", "is a file on this machine; pass its path"),
        ("nosuch://w.safetensors", "cannot be read: Protocol not known: nosuch"),
        ("memory://w.gguf", "at an address only safetensors are read; download it"),
        ("memory://w.pt", "at an address only safetensors are read; download it"),
    ],
)
def test_an_address_that_is_not_read_has_a_way_out(url: str, why: str) -> None:
    with pytest.raises(WeightsError, match=why):
        read_weights(url)


def test_an_index_leads_to_no_other_folder_or_host(file_server: FileServer) -> None:
    for shard in ("../w.safetensors", "http://127.0.0.1:9/w.safetensors", "/w.safetensors"):
        index = json.dumps({"weight_map": {"fc.weight": shard}}).encode()
        file_server.files["/m/model.safetensors.index.json"] = index
        with pytest.raises(WeightsError, match="outside its folder; refused"):
            read_weights(f"{file_server.address}/m")
    assert all(path.startswith("/m/") for path, _ in file_server.asked)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(WeightsError, match=r"is an address: pip install 'wwopt\[remote\]'"):
        read_weights("memory://m")


def test_paths_stay_paths_and_addresses_addresses() -> None:
    assert is_remote("s3://b/w") and is_remote("hf://org/name")
    assert not any(map(is_remote, ("C://w", "models:/digits/1", "w.pt", Path("s3://b"))))
    assert locate("s3://b/w") == "s3://b/w"
    assert join_url("s3://b/w/", "c.json") == "s3://b/w/c.json"
    with pytest.raises(WeightsError, match=r"is an address of MLflow, .*fetch_weights"):
        read_weights("models:/digits/1")
