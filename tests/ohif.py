"""The OHIF viewer: its files and an archive's DICOMweb behind one address, and what a person does there."""

import base64
import http.client
import http.server
import io
import json
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from browser import Browser, PageError
from peers import lacking
from PIL import Image

VERSION = "3.13.2"
_COMPLAINTS = (
    "Something went wrong",
    "Error loading",
    "not supported yet",
    "not yet supported",
    "is missing for",
    "No online PDF viewer",
)
_THUMBNAILS = "[...document.querySelectorAll('[data-cy^=study-browser-thumbnail]')]"
_ACTIVE = (
    "services.cornerstoneViewportService.getCornerstoneViewport(services.viewportGridService.getActiveViewportId())"
)
_PANE = "document.querySelector('[data-cy=viewport-pane]')"
_MAP = f"cornerstone.cache.getVolume({_ACTIVE}.getAllVolumeIds().find(one => one.startsWith('pmap.')))"
_SEGMENTS = "services.segmentationService.getSegmentations().flatMap(one => Object.values(one.segments))"
_VALUE_AT = """((viewport, point) => {
    const [column, row] = viewport.getImageData().imageData.worldToIndex(point).map(Math.round);
    const image = viewport.getCornerstoneImage();
    return image.getPixelData()[row * image.columns + column];
})"""
_BYTES_OF = """(map => {
    const bytes = new Uint8Array(Float32Array.from(map.voxelManager.getCompleteScalarDataArray()).buffer);
    let text = '';
    for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
    const {dimensions, spacing, origin} = map;
    return {dimensions, spacing, origin, direction: Array.from(map.direction), values: btoa(text)};
})"""
_SOURCE = {
    "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
    "sourceName": "archive",
    "configuration": {
        "friendlyName": "archive",
        "name": "archive",
        "wadoUriRoot": "/wado",
        "qidoRoot": "/dicom-web",
        "wadoRoot": "/dicom-web",
        "qidoSupportsIncludeField": False,
        "imageRendering": "wadors",
        "thumbnailRendering": "wadors",
        "enableStudyLazyLoad": True,
        "supportsFuzzyMatching": False,
        "supportsWildcard": True,
        "singlepart": "video",  # with "pdf" OHIF asks for a rendered instance, which Orthanc does not make of a PDF
        "acceptHeader": ["multipart/related; type=application/octet-stream; transfer-syntax=*"],
        "omitQuotationForMultipartRequest": True,
        "bulkDataURI": {"enabled": True},
    },
}
_CONFIG = {
    "routerBasename": "/",
    "extensions": [],
    "modes": [],
    "showStudyList": True,
    "maxNumberOfWebWorkers": 1,
    "showWarningMessageForCrossOrigin": False,
    "showCPUFallbackMessage": False,
    "showErrorDetails": "always",
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "archive",
    "dataSources": [_SOURCE],
}
#: The introduction would lie over the pictures.
_NO_TOUR = "localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']));"
_TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".wasm": "application/wasm",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff2": "font/woff2",
}


def ohif_folder() -> Path:
    """OHIF's files, as ``tests/install_peers.sh`` leaves them; without them the test is skipped (CI=true: fails)."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "discnode" / f"ohif-{VERSION}"
    if not (folder / "index.html").is_file():
        lacking(f"OHIF {VERSION} (npm package @ohif/app)")
    return folder


class ViewerServer:
    """Serves OHIF's files, and an archive's DICOMweb under ``/dicom-web``, on a free port of the loopback address."""

    def __init__(self, dist: Path, archive_port: int) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path.startswith("/dicom-web/"):
                    self._forward(b"")
                elif path == "/app-config.js":
                    self._answer(200, "text/javascript", f"window.config = {json.dumps(_CONFIG)};{_NO_TOUR}".encode())
                else:
                    file = dist / path.lstrip("/")
                    if not file.is_file():  # a page of the viewer's own
                        file = dist / "index.html"
                    self._answer(200, _TYPES.get(file.suffix, "application/octet-stream"), file.read_bytes())

            def do_POST(self) -> None:
                self._forward(self.rfile.read(int(self.headers.get("Content-Length", 0))))

            def _forward(self, body: bytes) -> None:
                kept = {
                    name: value for name, value in self.headers.items() if name in ("Accept", "Content-Type", "Host")
                }
                connection = http.client.HTTPConnection("127.0.0.1", archive_port, timeout=60)
                connection.request(self.command, self.path, body=body, headers=kept)
                answer = connection.getresponse()
                content = answer.read()
                connection.close()
                self._answer(answer.status, answer.headers.get("Content-Type", "text/plain"), content)

            def _answer(self, status: int, content_type: str, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(content)))
                # OHIF's volumes want SharedArrayBuffer
                self.send_header("Cross-Origin-Opener-Policy", "same-origin")
                self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass(frozen=True, slots=True)
class ShownSegment:
    """A segment as OHIF shows it: ``n_voxels`` and the centre of them, in its own counting."""

    number: int
    label: str
    n_voxels: int
    centre_lps_mm: tuple[float, ...]


class Viewer:
    """A person at OHIF: opens series by double click on their thumbnails, says yes, looks."""

    def __init__(self, browser: Browser, address: str, study_uid: str) -> None:
        self._browser = browser
        self._address = f"{address}/viewer?StudyInstanceUIDs={study_uid}"

    def reload(self, n_series: int) -> None:
        """Open the study afresh: what one series was shown with, OHIF keeps for the next one in its viewport."""
        self._browser.new_page()
        self._browser.open(self._address)
        self._browser.wait(f"{_THUMBNAILS}.length >= {n_series}", f"{n_series} series in the list")
        self._browser.wait(f"{_ACTIVE}?.viewportStatus === 'rendered'", "the first picture")
        self._still()  # who opens another series before, gets a picture turned and small

    def series(self) -> dict[int, str]:
        """Series number -> what the list says of it."""
        texts: list[str] = self._browser.evaluate(f"{_THUMBNAILS}.map(one => one.innerText)")
        return {int(text.partition("\nS:")[2].split()[0]): text for text in texts}

    def show(self, series_number: int, picture: Path) -> npt.NDArray[np.uint8]:
        """Open a series, wait until nothing moves any more; (rows, columns, 3), also written to ``picture``."""
        self._open(series_number)
        time.sleep(1.0)
        self._still()
        yes = "[...document.querySelectorAll('button')].find(one => one.innerText.trim() === 'Yes')"
        if self._browser.evaluate(f"!!{yes}"):  # open, or track, what was found
            self._click(yes)
            time.sleep(1.0)
        return self.look(picture)

    def look(self, picture: Path) -> npt.NDArray[np.uint8]:
        """The page when nothing moves any more; (rows, columns, 3), also written to ``picture``."""
        png = self._still()
        picture.write_bytes(png)
        return _pixels(png)

    def _still(self, timeout_s: float = 40.0) -> bytes:
        deadline_s = time.monotonic() + timeout_s
        before = b""
        while time.monotonic() < deadline_s:
            png = self._browser.screenshot()
            if png == before:
                return png
            before = png
            time.sleep(0.3)
        raise PageError(f"the page still moves after {timeout_s} s")

    def _click(self, element: str, *, times: int = 1) -> None:
        place = f"(one => {{one.scrollIntoView(); const box = one.getBoundingClientRect(); \
            return [box.x + box.width / 2, box.y + box.height / 2]}})({element})"
        self._browser.click(*self._browser.evaluate(place), times=times)

    def try_to_show(self, series_number: int, picture: Path) -> list[str]:
        """Open a series that cannot be shown; what is complained of."""
        self._open(series_number)
        deadline_s = time.monotonic() + 40.0
        while not self.complaints() and time.monotonic() < deadline_s:
            time.sleep(0.5)
        picture.write_bytes(self._browser.screenshot())
        return self.complaints()

    def _open(self, series_number: int) -> None:
        self._click(f"{_THUMBNAILS}.find(one => one.innerText.includes('S:{series_number}\\n'))", times=2)

    def complaints(self) -> list[str]:
        """What the viewer says is wrong, and uncaught errors of the page."""
        text: str = self._browser.evaluate("document.body.innerText")
        told = [line for line in text.splitlines() if any(word in line for word in _COMPLAINTS)]
        return told + self._browser.errors

    def text(self) -> str:
        """All text of the page, of graphics too."""
        found: str = self._browser.evaluate("document.body.innerText")
        return found

    def document(self) -> bytes:
        """The document that the viewport has given to the browser's reader."""
        address = f"{_PANE}.querySelector('object, iframe, embed')"
        text = self._browser.evaluate(
            f"(one => fetch(one.data || one.src))({address}).then(answer => answer.arrayBuffer())"
            ".then(bytes => btoa(Array.from(new Uint8Array(bytes), one => String.fromCharCode(one)).join('')))"
        )
        return base64.b64decode(text)

    def viewport(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the active viewport, in pixels of the picture."""
        box = self._browser.evaluate(
            f"(box => [box.left, box.top, box.right, box.bottom])({_PANE}.getBoundingClientRect())"
        )
        left, top, right, bottom = (round(one) for one in box)
        return left, top, right, bottom

    def go_to(self, world_lps_mm: npt.NDArray[np.float64]) -> tuple[int, int]:
        """Scroll to the slice with a point of the patient; column and row of the picture where it lies."""
        point = json.dumps(world_lps_mm.tolist())
        self._browser.evaluate(f"{_ACTIVE}.jumpToWorld({point}), null")
        near = f"Math.abs({_ACTIVE}.getCamera().focalPoint[0] - {point}[0]) < 0.01"  # sagittal slices
        self._browser.wait(near, "the slice")
        at = f"{_ACTIVE}.worldToCanvas({point})"
        box = f"{_ACTIVE}.element.getBoundingClientRect()"
        column, row = self._browser.evaluate(f"((at, box) => [box.x + at[0], box.y + at[1]])({at}, {box})")
        return round(column), round(row)

    def open_list_of_segments(self) -> None:
        """The panel at the right, with the names of the discs."""
        self._click("document.querySelector('[data-cy=panelSegmentation-btn]')")
        self._still()

    def segments(self) -> tuple[ShownSegment, ...]:
        """The segments that are shown, as the viewer has counted and placed them."""
        self._browser.wait(
            f"{_SEGMENTS}.length > 0 && {_SEGMENTS}.every(one => one.cachedStats?.namedStats?.count)",
            "the count of voxels",
        )
        found = self._browser.evaluate(
            f"{_SEGMENTS}.map(one => [one.segmentIndex, one.label, one.cachedStats.namedStats.count.value,"
            " Array.from(one.cachedStats.center.world)])"
        )
        return tuple(ShownSegment(number, label, count, tuple(centre)) for number, label, count, centre in found)

    def stored_value(self, world_lps_mm: npt.NDArray[np.float64]) -> float:
        """The stored pixel of the image that is shown, nearest to a point of the patient."""
        self.go_to(world_lps_mm)
        point = json.dumps(world_lps_mm.tolist())
        return float(self._browser.evaluate(f"{_VALUE_AT}({_ACTIVE}, {point})"))

    def map_values(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
        """Voxels (slices, rows, columns) of the parametric map that is shown, and affine (LPS mm)."""
        found = self._browser.evaluate(f"{_BYTES_OF}({_MAP})")
        columns, rows, slices = found["dimensions"]
        values = np.frombuffer(base64.b64decode(found["values"]), np.float32).reshape(slices, rows, columns)
        affine = np.eye(4)
        direction, spacing = np.array(found["direction"]).reshape(3, 3), found["spacing"]
        for axis, own in enumerate((2, 1, 0)):  # of columns, rows, slices
            affine[:3, axis] = direction[own] * spacing[own]
        affine[:3, 3] = found["origin"]
        return values, affine

    def window(self, lower: float, upper: float) -> None:
        """Spread the colours of the map that is shown over other values."""
        properties = f"{{voiRange: {{lower: {lower}, upper: {upper}}}}}"
        self._browser.evaluate(f"{_ACTIVE}.setProperties({properties}, {_MAP}.volumeId), {_ACTIVE}.render(), null")


def _pixels(png: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
