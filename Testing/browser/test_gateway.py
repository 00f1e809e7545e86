"""The door: who gets in, to whom, and what is left when somebody leaves."""

import asyncio
import os
import socket
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

aiohttp = pytest.importorskip("aiohttp", reason="needs the extra web: run make test")

from BoneSAMLib.browser import visitor
from BoneSAMLib.browser.gateway import Gateway, GatewaySettings
from BoneSAMLib.browser.serving import run_viewer
from BoneSAMLib.browser.visitor import VisitorTask
from BoneSAMLib.errors import BoneSAMError

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def echo(monkeypatch):
    monkeypatch.setattr(visitor, "_MODULE", "Testing.browser.echo_visitor")


def run(coroutine):
    asyncio.run(asyncio.wait_for(coroutine, 900))


@asynccontextmanager
async def open_gateway(**settings):
    """Its address, and a client."""
    settings = {"task": VisitorTask(), "port": 0, "grace": 0.2, **settings}
    stopped, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(Gateway(GatewaySettings(**settings)).serve(ready.set_result, stopped))
    try:
        async with aiohttp.ClientSession() as client:
            yield await ready, client
    finally:
        stopped.set()
        await serving


async def enter(client, address):
    """A new visitor's own address, once its process listens."""
    async with client.get(address, allow_redirects=False) as answer:
        assert answer.status == 302, await answer.text()
        own = address + answer.headers["Location"]
    while True:
        async with client.get(own + "whoami") as answer:
            if answer.content_type == "application/json":
                return own, await answer.json()
        await asyncio.sleep(0.05)


async def status(client, address, **options):
    async with client.get(address, **options) as answer:
        return answer.status


async def gone(process, folder):
    for _ in range(6000):
        if not Path(folder).exists() and not _runs(process):
            return True
        await asyncio.sleep(0.05)
    return False


def _runs(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_only_the_printed_address_leads_in():
    async def check():
        async with open_gateway() as (address, client):
            assert address.startswith("http://127.0.0.1:")
            root = "/".join(address.split("/")[:3])
            token = address.split("/")[3]
            assert len(token) >= 32
            own, _ = await enter(client, address)
            for wrong in (
                f"{root}/",
                f"{root}/{token[:-1]}/",
                f"{root}/{token}x/",
                f"{root}/index.html",
                f"{root}/x/{own.split('/')[4]}/whoami",
            ):
                assert await status(client, wrong) == 404, wrong
            assert await status(client, f"{address}somebody/whoami") == 410
            async with client.get(own + "whoami") as answer:
                assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
                assert answer.headers["Referrer-Policy"] == "no-referrer"

    run(check())


def test_every_visitor_has_a_process_and_a_folder_of_its_own(tmp_path):
    async def check():
        async with open_gateway(task=VisitorTask(upload_limit=7)) as (address, client):
            (one, told), (other, told_other) = await enter(client, address), await enter(client, address)
            assert one != other
            for key in ("process", "secret", "folder"):
                assert told[key] != told_other[key]
            assert told["upload_limit"] == 7
            for folder in (told["folder"], told_other["folder"]):
                assert Path(folder).stat().st_mode & 0o077 == 0

    run(check())


def test_everything_is_handed_on_unchanged():
    async def check():
        async with open_gateway() as (address, client):
            own, _ = await enter(client, address)
            async with client.get(own + "whoami?a=1&b=%2F..%2F") as answer:
                assert (await answer.json())["query"] == {"a": "1", "b": "/../"}
            content = os.urandom(3_000_000)
            async with client.post(own + "take", data=content) as answer:
                assert await answer.json() == {"bytes": len(content), "length": len(content)}
            async with client.ws_connect(own + "ws") as socket:
                await socket.send_str("bone")
                assert (await socket.receive()).data == "enob"
                await socket.send_bytes(content[:2_000_000])
                assert (await socket.receive()).data == content[:2_000_000][::-1]

    run(check())


def test_a_visitor_who_leaves_is_forgotten_and_one_who_comes_back_is_not():
    async def check():
        async with open_gateway(grace=5.0) as (address, client):
            own, told = await enter(client, address)
            socket = await client.ws_connect(own + "ws")
            await socket.close()
            await asyncio.sleep(0.3)  # the page is loaded again
            socket = await client.ws_connect(own + "ws")
            await asyncio.sleep(6.0)
            await socket.send_str("here")
            assert (await socket.receive()).data == "ereh"
            await socket.close()
            assert await gone(told["process"], told["folder"])
            async with client.get(own + "whoami") as answer:
                assert answer.status == 410
                assert "has ended" in await answer.text()

    run(check())


def test_places_are_limited_and_become_free():
    async def check():
        async with open_gateway(visitors=2) as (address, client):
            own, told = await enter(client, address)
            await enter(client, address)
            async with client.get(address, allow_redirects=False) as answer:
                assert answer.status == 503
                assert "2 places" in await answer.text()
            await (await client.ws_connect(own + "ws")).close()
            assert await gone(told["process"], told["folder"])
            await enter(client, address)

    run(check())


def test_nothing_is_left_when_the_viewer_ends():
    async def check():
        async with open_gateway() as (address, client):
            visitors = [await enter(client, address) for _ in range(2)]
        for _, told in visitors:
            assert await gone(told["process"], told["folder"])

    run(check())


def test_a_process_that_dies_ends_only_its_own_session():
    async def check():
        async with open_gateway() as (address, client):
            (own, told), (other, _) = await enter(client, address), await enter(client, address)
            os.kill(told["process"], 9)
            while await status(client, own + "whoami") != 410:
                await asyncio.sleep(0.05)
            assert await status(client, other + "whoami") == 200
            assert await gone(told["process"], told["folder"])

    run(check())


def start(**changes):
    said, warned = [], []
    arguments = {
        "scan": None,
        "mask": None,
        "host": "127.0.0.1",
        "port": 0,
        "upload_limit_mb": 1,
        "visitors": 1,
    }
    run_viewer(**{**arguments, **changes}, tell=said.append, warn=warned.append)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scan": Path("nowhere.nii.gz")}, "There is no file or folder 'nowhere.nii.gz'"),
        ({"mask": Path("a.seg.nrrd")}, "needs the scan"),
        ({"scan": Path(), "mask": Path("a.seg.nrrd")}, "There is no file 'a.seg.nrrd'"),
        ({"scan": Path(), "mask": Path(__file__)}, "use a .seg.nrrd file"),
        ({"host": "192.0.2.1"}, "Cannot listen at 192.0.2.1"),
    ],
)
def test_what_cannot_be_served_is_said_in_a_sentence(monkeypatch, changes, message):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(BoneSAMError, match=message):
        start(**changes)


def test_a_port_that_is_taken(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BoneSAMError, match=f"Port {port} is taken"):
            start(port=port)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(BoneSAMError, match=r"pip install -e '.\[web\]'"):
        start()


def test_others_on_the_network_are_warned_of(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    warned = []

    class Done(Exception):
        pass

    def end(*_):
        raise Done

    monkeypatch.setattr("asyncio.run", end)
    monkeypatch.setattr(Gateway, "serve", lambda *_: None)
    for host in ("0.0.0.0", "192.168.1.5", "::", "example.org", "127.0.0.1", "localhost", "::1"):
        with pytest.raises(Done):
            run_viewer(
                None, None, host, 0, 1, 1, tell=print, warn=lambda text, host=host: warned.append(host)
            )
    assert warned == ["0.0.0.0", "192.168.1.5", "::", "example.org"]
