"""The verbs as routes: each does what its method does, and says so in the same words."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest

import retain
from retain.errors import DiskFull
from retain.values import content_hash, to_json
from tests.server.conftest import LABELS, Server, body, cluster, npy


def events(text):
    """Server-sent events: (kind, data) of each."""
    found = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def state(shop):
    """What is remembered: hash → label."""
    return {sample.image: sample.label for sample in shop.samples()}


def test_predict_answers_as_the_method(server):
    rows = cluster("bee", 3, seed=5)
    said = server.post("/predict?top=3", json={"pictures": [body(row) for row in rows]})
    expected = server.shop.predict(rows, top=3)
    assert said["event"] == server.shop.event
    for told, own in zip(said["predictions"], expected, strict=True):
        plain = {**to_json(own), "path": "picture"}
        assert {key: told[key] for key in plain} == json.loads(json.dumps(plain))
        assert told["id"].startswith("p-")


def test_three_ways_to_give_a_picture(server):
    row = cluster("cow", 1)[0]
    one = server.post("/predict", json={"pictures": [body(row, name="a/b/x.npy")]})
    two = server.post("/predict", files=[("files", ("a/b/x.npy", npy(row)))])
    three = server.post("/predict", content=npy(row), headers={"Content-Type": "image/jpeg"})
    images = {each["predictions"][0]["image"] for each in (one, two, three)}
    assert images == {content_hash(npy(row))}
    assert one["predictions"][0]["path"] == two["predictions"][0]["path"] == "x.npy"
    again = server.post(
        "/predict", json={"pictures": [{"prediction": one["predictions"][0]["id"]}]}
    )
    named = server.post("/predict", json={"pictures": [{"image": images.pop()[7:15]}]})
    assert again["predictions"][0]["label"] == named["predictions"][0]["label"] == "cow"


def test_what_cannot_be_read_is_skipped_and_not_kept(server):
    said = server.post(
        "/predict",
        files=[("files", ("a.npy", b"nonsense")), ("files", ("b", npy(cluster("ant", 1)[0])))],
    )
    assert [each["path"] for each in said["skipped"]] == ["a.npy"]
    assert len(said["predictions"]) == 1
    assert server.serving.desk.picture(content_hash(b"nonsense")) is None


def test_similar_pictures(server):
    row = cluster("bee", 1)[0]
    said = server.post("/predict?similar=4", json={"pictures": [body(row + 0.01)]})
    near = said["predictions"][0]["similar"]
    assert len(near) == 4
    assert [each["similarity"] for each in near] == sorted(
        (e["similarity"] for e in near), reverse=True
    )
    assert near[0]["label"] == "bee"
    assert near[0]["similarity"] > 0.99


def test_what_a_picture_would_contradict_is_told_with_what_it_resembles(server):
    """The same as a hint for that label, so that nobody has to ask again."""
    told = []
    for kind, seed in (("bee", 0), ("ant", 77), ("elk", 5)):
        picture = body(cluster(kind, 1, seed=seed)[0] + 0.001)
        said = server.post("/predict?similar=4", json={"pictures": [picture]})["predictions"][0]
        against = said["contradicts"]
        for label in ("bee", "ant", "new"):
            hints = server.post("/hints", json={"items": [{**picture, "label": label}]})["hints"][0]
            (hint, *more) = [each for each in hints if each["kind"] == "contradicts"] or [None]
            assert not more
            assert hint == (against if against and against["unless"] != label else None)
            told.append(hint)
    assert any(told)
    assert not all(told)
    plain = server.post("/predict", json={"pictures": [picture]})["predictions"][0]
    assert "contradicts" not in plain


def test_correct_by_prediction_and_undo(server):
    row = cluster("wasp", 1, seed=77)[0]
    said = server.post("/predict", json={"pictures": [body(row)]})["predictions"][0]
    before = state(server.shop)
    told = server.post(
        "/correct", "teacher", json={"corrections": [{"prediction": said["id"], "label": "wasp"}]}
    )
    assert told["fixed"] is True
    assert told["new_classes"] == ["wasp"]
    assert (
        server.post("/predict", json={"pictures": [body(row)]})["predictions"][0]["label"] == "wasp"
    )
    assert server.get("/log")["events"][0]["actor"] == "teacher"
    assert server.get(f"/show/{told['event']}")["event"]["actor"] == "teacher"
    server.post("/undo", "teacher")
    assert state(server.shop) == before


def test_correct_a_remembered_picture_by_its_hash(server):
    sample = server.shop.samples()[0]
    told = server.post(
        "/correct",
        "teacher",
        json={"corrections": [{"image": sample.image[7:17], "label": "zebra"}]},
    )
    assert told["relabelled"] == 1
    assert state(server.shop)[sample.image] == "zebra"


def test_corrections_are_all_or_none(server):
    row = cluster("bee", 1)[0]
    before, count = state(server.shop), server.shop.event
    wanted = [body(row, label="x"), {"image": "f" * 64, "label": "y"}]
    server.post("/correct", "teacher", json={"corrections": wanted}, status=404)
    assert (state(server.shop), server.shop.event) == (before, count)


def test_learn_relearn_and_dry_run(server):
    rows = cluster("dog", 6)
    items = [body(row, label="dog") for row in rows]
    dry = server.post("/learn", "teacher", json={"items": items, "dry_run": True})
    assert (dry["event"], dry["learned"]) == (None, 6)
    told = server.post("/learn", "teacher", json={"items": items})
    assert (told["learned"], told["new_classes"]) == (6, ["dog"])
    again = server.post("/learn", "teacher", json={"items": items})
    assert (again["event"], again["known"]) == (None, 6)


def test_learn_a_form_and_a_label_for_all(server):
    files = [("files", (f"{i}.npy", npy(row))) for i, row in enumerate(cluster("dog", 5))]
    told = server.post("/learn", "teacher", files=files, data={"labels": "dog"})
    assert told["learned"] == 5
    assert {s.source for s in server.shop.samples() if s.label == "dog"} == {
        f"{i}.npy" for i in range(5)
    }
    wrong = server.post("/learn", "teacher", files=files, data={"labels": ["a", "b"]}, status=422)
    assert "5 files came with 2 labels" in wrong["message"]


def test_the_gate_refuses_with_its_choices(server):
    """Labels that contradict everything known are doubted; only the owner may insist."""
    items = [body(row, label="bee") for row in cluster("ant", 12, seed=9)]
    refused = server.post("/learn", "teacher", json={"items": items}, status=409)
    assert refused["error"] == "GateRefused"
    assert refused["verdict"]["passed"] is False
    assert any(not check["passed"] for check in refused["verdict"]["checks"])
    choices = {each["choice"]: each for each in refused["choices"]}
    assert {"leave", "dry_run", "force", "gate"} <= set(choices)
    assert choices["force"]["role"] == "owner"
    forced = {"items": items, **choices["force"]["set"]}
    server.post("/learn", "teacher", json=forced, status=403)
    assert server.post("/learn", "owner", json=forced)["verdict"]["forced"] is True


def test_forget_is_the_owners_and_reaches_the_desk(server):
    row = cluster("eel", 1, seed=3)[0]
    asked = server.post("/predict", json={"pictures": [body(row)]})["predictions"][0]
    server.post("/learn", "teacher", json={"items": [{"prediction": asked["id"], "label": "ant"}]})
    server.post("/forget", "teacher", json={"images": [asked["image"]]}, status=403)
    receipt = server.post("/forget", "owner", json={"images": [asked["image"]]})
    assert (receipt["images"], receipt["level"]) == (1, "exact")
    assert server.serving.desk.asked(asked["id"]) is None
    for file in server.settings.path.rglob("*"):
        if file.is_file():
            assert npy(row)[-40:] not in file.read_bytes(), file
            assert asked["image"][7:].encode() not in file.read_bytes(), file


def test_what_others_forget_leaves_the_desk_too(vectors):
    with Server(vectors) as server:
        row = server.shop.image(server.shop.samples()[0].image)
        asked = server.post("/predict", content=row)["predictions"][0]
        assert asked["remembered"] is True
        with retain.open(vectors) as other:
            other.forget([asked["image"]])
        serving = server.serving
        serving._desk_work.submit(serving._looked, 0, server.client.portal.call(_loop)).result()
        assert serving.desk.asked(asked["id"]) is None


def everywhere(server, text):
    """The files of a classifier that hold these bytes."""
    files = (file for file in server.settings.path.rglob("*") if file.is_file())
    return [file for file in files if text in file.read_bytes()]


def test_what_others_taught_and_forgot_leaves_nothing_behind(vectors):
    """Asked about on the page; taught, and forgotten, from the command line."""
    row = cluster("eel", 1, seed=3)[0]
    with Server(vectors) as server:
        asked = server.post("/predict", content=npy(row))["predictions"][0]
        server.serving.desk.settle()
        with retain.open(vectors) as other:
            other.learn(row[None], "eel", force=True)
            other.forget([asked["image"]])
        assert not everywhere(server, npy(row)[-40:])
        assert not everywhere(server, asked["image"][7:].encode())
        again = {"pictures": [{"image": asked["image"]}]}
        server.post("/predict", json=again, status=404)


@pytest.mark.parametrize("running", [True, False])
def test_what_others_taught_leaves_the_desk(vectors, running):
    row = cluster("eel", 1, seed=3)[0]
    with Server(vectors) as server:
        asked = server.post("/predict", content=npy(row))["predictions"][0]
        if running:
            _teach(vectors, row)
            deadline = time.monotonic() + 30
            while server.serving.desk.picture(asked["image"]) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert server.serving.desk.picture(asked["image"]) is None
    if not running:
        _teach(vectors, row)
        with Server(vectors) as server:
            deadline = time.monotonic() + 30
            while server.serving.desk.picture(asked["image"]) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert server.serving.desk.picture(asked["image"]) is None
            assert server.serving.desk.asked(asked["id"]) == asked["image"]


def test_what_is_brought_back_leaves_the_desk(server):
    row = cluster("eel", 1, seed=3)[0]
    lesson = [body(row, label="eel")]
    server.post("/learn", "owner", json={"items": lesson, "force": True})
    server.post("/undo", "teacher")
    asked = server.post("/predict", content=npy(row))["predictions"][0]
    assert server.serving.desk.picture(asked["image"])
    server.post("/undo", "teacher", json={"event": server.shop.event})
    serving = server.serving
    serving._desk_work.submit(
        serving._looked, server.shop.event - 1, server.client.portal.call(_loop)
    ).result()
    assert serving.desk.picture(asked["image"]) is None


def test_forget_reaches_the_desk_before_anything_can_go_wrong(server, monkeypatch):
    row = cluster("eel", 1, seed=3)[0]
    lesson = [body(row, label="eel")]
    server.post("/learn", "owner", json={"items": lesson, "force": True})
    server.post("/undo", "teacher")
    asked = server.post("/predict", content=npy(row))["predictions"][0]
    full = DiskFull("no room left to erase the last traces")
    monkeypatch.setattr("retain.store.erasing.rewrite", lambda _: (_ for _ in ()).throw(full))
    told = server.post("/forget", "owner", json={"events": [4]}, status=507)
    assert told["error"] == "DiskFull"
    assert server.serving.desk.picture(asked["image"]) is None
    assert server.serving.desk.asked(asked["id"]) is None


def _teach(path, row):
    with retain.open(path) as other:
        other.learn(row[None], "eel", force=True)


async def _loop():
    import asyncio

    return asyncio.get_running_loop()


def test_restore_to_any_point(server):
    states = [state(server.shop)]
    first = server.shop.event
    rows = cluster("fox", 4)
    for i, row in enumerate(rows):
        server.post("/correct", "teacher", json={"corrections": [body(row, label=f"fox{i % 2}")]})
        states.append(state(server.shop))
    server.post("/undo", "teacher", json={"event": first + 2})
    undone = state(server.shop)
    told = server.post("/restore", "teacher", json={"event": first + 1})
    assert state(server.shop) == states[1]
    assert told["undone"] == [first + 4, first + 3]
    # And back to after the undo, then to before it: what was taken back comes again.
    server.post("/restore", "teacher", json={"event": first + 5})
    assert state(server.shop) == undone
    server.post("/restore", "teacher", json={"event": first + 4})
    assert state(server.shop) == states[4]
    server.post("/restore", "teacher", json={"event": first})
    assert state(server.shop) == states[0]
    server.post("/restore", "teacher", json={"event": 10_000}, status=404)


def test_evaluate_with_progress(server):
    rows, labels = np.vstack([cluster(label, 4, seed=8) for label in LABELS]), np.repeat(LABELS, 4)
    items = [body(row, label=str(label)) for row, label in zip(rows, labels, strict=True)]
    plain = server.post("/evaluate", json={"items": items})
    answer = server.ask(
        "POST", "/evaluate", json={"items": items}, headers={"Accept": "text/event-stream"}
    )
    told = events(answer.text)
    assert [kind for kind, _ in told[:-1]] == ["progress"] * (len(told) - 1)
    assert told[-2][1] == {"done": 12, "total": 12}
    assert told[-1][0] == "result"
    assert {**told[-1][1], "seconds": 0} == {**plain, "seconds": 0}
    own = to_json(server.shop.evaluate(rows, list(labels)))
    assert plain["confusion"] == own["confusion"]


def test_an_error_comes_as_an_event_too(server):
    items = [body(row, label="bee") for row in cluster("ant", 12, seed=9)]
    answer = server.ask(
        "POST", "/learn", "teacher", json={"items": items}, headers={"Accept": "text/event-stream"}
    )
    kind, told = events(answer.text)[-1]
    assert (kind, told["status"], told["error"]) == ("error", 409, "GateRefused")


def test_versions_diff_promote_and_rollback(server):
    server.post("/promote", "owner", json={"version": 2})
    server.post("/promote", "owner", json={"version": 3, "force": True})
    aliases = {v["event"]: v["aliases"] for v in server.get("/versions")["versions"]}
    assert aliases[3] == ["production"]
    server.post("/rollback", "owner")
    aliases = {v["event"]: v["aliases"] for v in server.get("/versions")["versions"]}
    assert aliases[2] == ["production"]
    assert server.get("/diff?a=2&b=3")["new_classes"] == ["cow"]
    old = server.post(
        "/predict?version=production", json={"pictures": [body(cluster("cow", 1)[0])]}
    )
    assert old["event"] == 2
    assert old["predictions"][0]["label"] != "cow"
    assert server.get("/diff?a=99999999999999999999", status=404)["error"] == "UnknownEvent"


def test_gate_protect_rename_merge(server):
    assert server.post("/gate", "owner", json={"regressions": 0.07})["regressions"] == 0.07
    assert server.get("/gate")["regressions"] == 0.07
    assert server.post("/gate", "owner", json={"nonsense": 1.0}, status=422)["error"] == "BadOption"
    server.post("/protect", "teacher", json={"labels": ["ant"]})
    server.post("/rename", "owner", json={"old": "bee", "new": "hornet"})
    server.post("/merge", "owner", json={"old": "hornet", "into": "cow"})
    assert {c["label"]: c["images"] for c in server.get("/classes")["classes"]} == {
        "ant": 12,
        "cow": 24,
    }
    assert [e["actor"] for e in server.get("/log?limit=4")["events"]] == [
        "owner",
        "owner",
        "teacher",
        "owner",
    ]


def test_the_gallery_comes_in_pages(server):
    page = server.get("/samples?label=bee&limit=5&offset=10&order=hash")
    assert (page["total"], len(page["samples"])) == (12, 2)
    assert {each["label"] for each in page["samples"]} == {"bee"}
    everything = server.get("/samples?limit=1000")["samples"]
    assert [each["event"] for each in everything] == sorted(
        (e["event"] for e in everything), reverse=True
    )
    one = server.get("/samples/" + everything[0]["image"])
    assert one["sample"]["image"] == everything[0]["image"]
    assert one["history"][0]["kind"] == "learn"


def test_status_says_no_path(server):
    told = server.ask("GET", "/status").text
    assert str(server.settings.path.parent) not in told
    assert json.loads(told)["images"] == 36
    told = server.get("/verify")
    assert told["ok"] is True


def test_nothing_learned_is_said(tmp_path):
    with retain.create(tmp_path / "empty", extractor="vectors:12"):
        pass
    with Server(tmp_path / "empty") as server:
        told = server.post("/predict", json={"pictures": [body(np.ones(12))]}, status=409)
        assert told["error"] == "NothingLearned"
        assert str(tmp_path) not in told["message"]
        assert (
            server.post("/learn", "teacher", json={"items": [body(np.ones(12), label="a")]})[
                "event"
            ]
            == 1
        )


@pytest.mark.parametrize("memory", ["features"])
def test_a_classifier_without_pictures(tmp_path, memory):
    with retain.create(tmp_path / "f", extractor="vectors:12", memory=memory) as shop:
        shop.learn(cluster("ant", 4), "ant")
        name = shop.samples()[0].image
    with Server(tmp_path / "f") as server:
        assert (
            server.post("/predict", json={"pictures": [{"image": name}]}, status=404)["error"]
            == "UnknownImage"
        )
        server.get(f"/image/{name}", status=404)
        told = server.post(
            "/correct", "teacher", json={"corrections": [{"image": name, "label": "bee"}]}
        )
        assert told["fixed"] is True


@pytest.mark.parametrize(
    "asked", ["bytes=99999999-", "bytes=5-1", "nonsense", "bytes=0-3", "bytes=0-3,7-9"]
)
def test_a_download_is_whole_and_leaves_nothing_behind(vectors, tmp_path, monkeypatch, asked):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with Server(vectors) as server:
        before = sorted((tmp_path / "temporary").iterdir())
        answer = server.ask("GET", "/pack", "owner", headers={"Range": asked})
        assert answer.headers["accept-ranges"] == "none"
        assert int(answer.headers["content-length"]) == len(answer.content) > 10_000
        assert sorted((tmp_path / "temporary").iterdir()) == before
        monkeypatch.setattr(retain.Classifier, "pack", lambda *_: 1 / 0)
        server.ask("GET", "/pack", "owner", status=500)
        assert sorted((tmp_path / "temporary").iterdir()) == before


def test_what_a_killed_server_was_sending_goes_at_the_next_start(vectors, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    script = (
        "import os, sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from retain.faces.server import downloads, settings\n"
        "place = downloads._place(settings.Settings(downloads.Path(sys.argv[2])))\n"
        "with downloads.workshop(place) as room:\n"
        "    (room / 'made.retain').write_bytes(b'all of it'); os._exit(9)\n"
    )
    given = [sys.executable, "-c", script, str(tmp_path / "temporary"), str(vectors)]
    assert subprocess.run(given, check=False).returncode == 9
    assert list((tmp_path / "temporary").rglob("made.retain"))
    with Server(vectors):
        assert not list((tmp_path / "temporary").rglob("made.retain"))


def test_export_and_pack_are_downloads(photos):
    answer = photos.ask("GET", "/export", "owner")
    assert answer.headers["content-disposition"].endswith('"shop.onnx"')
    photos.ask("GET", "/export", "teacher", status=403)
    packed = photos.ask("GET", "/pack", "owner")
    file = photos.settings.path.parent / "back.retain"
    file.write_bytes(packed.content)
    with retain.unpack(file, photos.settings.path.parent / "back") as back:
        assert back.digest == photos.shop.digest
        assert not (back.path / "serve").exists()


def test_pictures_thumbnails_explanations(photos, drawn):
    file = drawn["mug"][6]
    said = photos.post("/predict", files=[("files", (file.name, file.read_bytes()))])[
        "predictions"
    ][0]
    for name in (said["image"], photos.shop.samples()[0].image):
        drawn_small = photos.ask("GET", f"/image/{name}?side=32")
        assert drawn_small.headers["content-type"] == "image/jpeg"
        assert drawn_small.content[:2] == b"\xff\xd8"
    told = photos.post("/explain?remedies=1", json={"pictures": [{"prediction": said["id"]}]})
    assert told["prediction"]["label"] == said["label"]
    assert len(told["remedies"]) == 1
    assert told["evidence"] is None or told["evidence"].startswith("data:image/png;base64,")
    assert str(photos.settings.path) not in json.dumps(told)
