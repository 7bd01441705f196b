"""A small storage SCP that puts what it gets into a folder, one file an object. For demonstrations and tests."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pynetdicom import AE, evt

from dicom_io.element_walk import identify
from dicom_io.presentation import accepted_contexts


class ReceivingFolder:
    """An open storage SCP on a free loopback port; a context manager. Nothing is kept but the files."""

    def __init__(self, folder: Path, *, ae_title: str = "ARCHIVE") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.ae_title = ae_title
        self._ae = AE(ae_title=ae_title)
        self._ae.supported_contexts = list(accepted_contexts())
        self._server: Any = self._ae.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )

    @property
    def port(self) -> int:
        """The TCP port it listens on."""
        return int(self._server.server_address[1])

    @property
    def files(self) -> tuple[Path, ...]:
        """What has arrived, whole."""
        return tuple(sorted(self.folder.glob("*.dcm")))

    def _store(self, event: evt.Event) -> int:
        identity = identify(event.encoded_dataset(include_meta=False), str(event.context.transfer_syntax))
        temporary = self.folder / f"{identity.sop_instance_uid}.part"
        temporary.write_bytes(event.encoded_dataset())
        temporary.rename(self.folder / f"{identity.sop_instance_uid}.dcm")
        return 0x0000

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ae.shutdown()
