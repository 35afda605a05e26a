"""The page in a real browser: clicks, files, a microphone that plays a file; skipped where no Chromium is."""

import shutil
import threading
import time

import numpy as np
import pytest
import uvicorn

from tests.support.serving import RATE, wav

playwright = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(CHROMIUM is None, reason="the browser test needs Chromium"),
]
PHONE = {"width": 390, "height": 800}


@pytest.fixture(scope="module")
def address(folders):
    """The address of a service with the page, in a thread."""
    from mamba_speech.serving.app import create_app
    from mamba_speech.serving.settings import read_settings

    settings = read_settings(
        environment={}, models=folders, device="cpu", decoders=1, page=True, api_keys=["secret"]
    )
    server = uvicorn.Server(uvicorn.Config(create_app(settings), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.1)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def sounds(samples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    for name, one in (
        ("one", samples),
        ("two", samples[::-1].copy()),
        ("long", np.tile(samples, 9)),
    ):
        (folder / f"{name}.wav").write_bytes(wav(one))
    return folder


@pytest.fixture
def page(address, sounds):
    """The page with its key given."""
    microphone = f"--use-file-for-fake-audio-capture={sounds / 'long.wav'}"
    arguments = ["--no-sandbox", "--use-fake-ui-for-media-stream"]
    arguments += ["--use-fake-device-for-media-stream", microphone, "--disable-gpu"]
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page(viewport=PHONE)
        faults = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(address)
        page.get_by_text("send a key of this service").wait_for()
        page.get_by_label("Key").fill("secret")
        page.get_by_label("Key").press("Enter")
        page.get_by_role("tab").first.wait_for()
        yield page
        browser.close()
        assert faults == []


def test_every_task_answers_to_clicks_and_nothing_is_wider_than_a_phone(page, sounds):
    tabs = page.get_by_role("tab").all_text_contents()
    assert tabs == ["Transcribe", "Live", "Separate", "Compare voices", "Spot keywords"]
    section = page.locator("#transcribe")
    section.get_by_label("Recording").set_input_files(sounds / "one.wav")
    section.locator("tbody tr").first.wait_for()
    assert section.locator(".text").inner_text().strip()
    page.get_by_role("tab", name="Separate").click()
    section = page.locator("#separate")
    section.get_by_label("Recording").set_input_files(sounds / "one.wav")
    section.locator("figure").nth(1).wait_for()
    assert section.locator("figcaption").all_text_contents() == ["Speaker 1", "Speaker 2"]
    page.get_by_role("tab", name="Compare").click()
    section = page.locator("#verify")
    section.get_by_label("First voice").set_input_files(sounds / "one.wav")
    section.get_by_label("Second voice").set_input_files(sounds / "two.wav")
    section.get_by_text("threshold").wait_for()
    page.get_by_role("tab", name="Spot").click()
    section = page.locator("#spot")
    section.get_by_role("slider").fill("0.1")
    section.get_by_label("Recording").set_input_files(sounds / "long.wav")
    section.locator(".line").wait_for()
    for tab in tabs:
        page.get_by_role("tab", name=tab).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_the_microphone_is_heard_live_and_recorded(page):
    page.get_by_role("tab", name="Live").click()
    page.get_by_role("button", name="Start").click()
    playwright.expect(page.locator("#live .text")).not_to_have_text(" ", timeout=20000)
    time.sleep(2)
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("tab", name="Transcribe").click()
    section = page.locator("#transcribe")
    section.get_by_role("button", name="Record", exact=True).click()
    time.sleep(1.5)
    section.get_by_role("button", name="Stop").click()
    playwright.expect(section.locator(".text")).not_to_have_text("", timeout=20000)


def test_tabs_go_by_keyboard_and_a_bad_file_is_told(page, tmp_path):
    page.get_by_role("tab", name="Transcribe").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#live").is_visible()
    page.keyboard.press("ArrowLeft")
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    page.locator("#transcribe").get_by_label("Recording").set_input_files(tmp_path / "bad.wav")
    page.get_by_text("cannot be read as audio").wait_for()


def test_recordings_of_the_page_have_the_services_rate(page):
    script = page.request.get(page.url + "page/page.js").text()
    assert f"const RATE = {RATE};" in script
