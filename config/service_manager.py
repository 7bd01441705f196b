"""What systemd tells a service of Type=notify."""

import os


def notify_address() -> str | None:
    """Where the service manager listens for word of this process (sd_notify), or None: nobody does."""
    return os.environ.get("NOTIFY_SOCKET") or None
