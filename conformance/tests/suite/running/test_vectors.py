"""The vectors: stored digests equal what is computed, and a folder of files gives the verdicts that a program gives."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from safetensors.numpy import load_file, save_file

from doconv_conformance.cases.generator import draws
from doconv_conformance.cases.table import cases, select
from doconv_conformance.protocol.schemas import problem, schema
from doconv_conformance.protocol.session import hello_request, run_request
from doconv_conformance.running import vectors
from doconv_conformance.running.offline import check_folder
from doconv_conformance.verdicts.judge import summarise

CORE = (sys.executable, "-m", "doconv_conformance.adapters.core")
PAIRS = [pair for pair in select(stage="groups") if pair[0].dtype == "float32"]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_regenerating_gives_the_stored_bytes() -> None:
    assert vectors.manifest() == vectors.stored(), "to store them afresh: python -m doconv_conformance.running.vectors"
    assert problem(json.loads(vectors.stored()), "vectors") == ""


def test_exporting_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        vectors.export(tmp_path / name, PAIRS)
    first, second = (files_of(tmp_path / name) for name in ("first", "second"))
    assert first == second
    assert len(first) == 2 * len(PAIRS) + 3


def test_digests_and_messages_are_what_the_documentation_says(tmp_path: Path) -> None:
    vectors.export(tmp_path / "folder", PAIRS)
    entries = {
        entry["id"]: entry for entry in json.loads((tmp_path / "folder" / vectors.MANIFEST).read_text())["cases"]
    }
    lines = (tmp_path / "folder" / vectors.REQUESTS).read_text().splitlines()
    hello, *requests = map(json.loads, lines)
    assert problem(hello, "protocol", "hello_request") == ""
    assert len(requests) == len(PAIRS)
    for request in requests:
        assert problem(request, "protocol", "run") == ""
        case = request["id"].rpartition("/")[0]
        for name, tensor in load_file(tmp_path / "folder" / request["inputs"]).items():
            assert hashlib.sha256(tensor.tobytes()).hexdigest()[:32] == entries[case]["inputs"][name]
        want = load_file(tmp_path / "folder" / request["inputs"].replace("inputs", "expected"))
        for name, digest in entries[case].get("outputs", {}).get(request["operation"], {}).items():
            assert vectors.digest(want[name].astype(np.float32)) == digest


def test_the_generator_by_hand() -> None:
    """The example of conformance/README.md, with Python integers only."""
    label, mask = "x", 2**64 - 1
    key = int.from_bytes(hashlib.sha256(label.encode()).digest()[:8], "big")

    def draw(index: int) -> int:
        z = key + (index + 1) * 0x9E3779B97F4A7C15 & mask
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        return z ^ z >> 31

    assert [draw(index) for index in range(6)] == draws(label, (2, 3)).ravel().tolist()


def test_a_folder_is_judged_as_a_program_is(tmp_path: Path) -> None:
    """The core on the exported requests, as a porter would run it: `cd folder && PORT < requests.jsonl > answers.jsonl`."""
    folder = tmp_path / "folder"
    vectors.export(folder, PAIRS)
    with (folder / vectors.REQUESTS).open() as source, (folder / vectors.ANSWERS).open("w") as target:
        subprocess.run(CORE, stdin=source, stdout=target, cwd=folder, check=True)
    run = check_folder(folder, PAIRS)
    assert run.backend.name == "core"
    assert summarise(run.results)["agree"]
    assert {result.verdict for result in run.results} == {"exact", "within_bound"}

    case, operation = PAIRS[0]
    path = folder / "cases" / case.id / f"{operation}.outputs.safetensors"
    wrong = {name: np.nextafter(tensor, np.float32(np.inf)) for name, tensor in load_file(path).items()}
    save_file(wrong, path)
    path_of_second = folder / "cases" / PAIRS[1][0].id / f"{PAIRS[1][1]}.outputs.safetensors"
    path_of_second.unlink()
    verdicts = [result.verdict for result in check_folder(folder, PAIRS).results]
    assert verdicts[:2] == ["mismatch", "crashed"]


def test_a_folder_without_outputs_does_not_agree(tmp_path: Path) -> None:
    vectors.export(tmp_path / "folder", PAIRS[:3])
    run = check_folder(tmp_path / "folder", PAIRS[:3])
    assert [result.reason for result in run.results] == ["wrote no file forward.outputs.safetensors"] * 3
    assert not summarise(run.results)["agree"]


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        (vectors.MANIFEST, {"version": 99}, "the vectors must be of version 1. Received: version 99"),
        (vectors.MANIFEST, {"format": "else"}, "format"),
        (vectors.ANSWERS, "nonsense", "answers.jsonl line 1 is not JSON. Received: 'nonsense'"),
        (vectors.ANSWERS, '{"type": "result"}', "answers.jsonl line 1: lacks id, status"),
    ],
)
def test_what_is_no_folder_of_vectors_is_refused(name: str, change: dict | str, text: str, tmp_path: Path) -> None:
    vectors.export(tmp_path / "folder", PAIRS[:1])
    path = tmp_path / "folder" / name
    path.write_text(change if isinstance(change, str) else json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=text):
        check_folder(tmp_path / "folder", PAIRS[:1])


def test_schemas_are_schemas_and_every_request_keeps_to_them() -> None:
    for name in ("protocol", "report", "vectors"):
        Draft202012Validator.check_schema(schema(name))
    assert problem(hello_request(), "protocol", "hello_request") == ""
    for case in cases():
        request = run_request(case.id, "forward", case.geometry, case.dtype, case.param_dtype, "in", "out")
        assert problem(request, "protocol", "run") == ""
        assert problem(request, "protocol") == ""
    assert problem({"type": "result", "id": "a", "status": "error"}, "protocol", "result") == "lacks reason"


README = (Path(__file__).parents[3] / "README.md").read_text("utf-8")


def test_the_example_file_of_the_readme_is_a_safetensors_file(tmp_path: Path) -> None:
    (block,) = re.findall(r"```hex\n(.*?)```", README, re.DOTALL)
    path = tmp_path / "example.safetensors"
    path.write_bytes(bytes.fromhex("".join(line[10:57] for line in block.splitlines())))
    tensors = load_file(path)
    assert list(tensors) == ["W"]
    assert tensors["W"].dtype == ml_dtypes.bfloat16
    assert tensors["W"].tolist() == [[[1.0, -2.5]]]


def test_the_messages_of_the_readme_keep_to_the_schema() -> None:
    messages = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", README, re.DOTALL)]
    assert [message["type"] for message in messages] == ["hello", "hello", "run", "result", "result", "result"]
    definitions = ("hello_request", "hello", "run", "result", "result", "result")
    for message, definition in zip(messages, definitions, strict=True):
        assert problem(message, "protocol", definition) == ""
    case = next(case for case in cases() if case.name == "groups-2-exact-float32")
    assert messages[2]["id"] == f"{case.id}/forward"
    assert messages[2]["geometry"] == case.geometry.to_json()


def test_the_draws_of_the_readme() -> None:
    assert " ".join(f"0x{draw:016x}" for draw in draws("x", (3,)).tolist()) in README


def test_the_readme_names_every_field_that_the_schema_has() -> None:
    definitions = schema("protocol")["$defs"]
    for name in ("hello", "supports", "numerics", "run", "result", "geometry"):
        for field in definitions[name]["properties"]:
            assert f"`{field}`" in README or f".{field}`" in README or f'"{field}"' in README, (name, field)
