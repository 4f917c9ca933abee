"""The command that installs this package, as error messages name it."""

from __future__ import annotations

__all__ = ["SOURCE", "install_command"]

SOURCE = "."
"""What pip installs this package from: the checkout in whose folder it runs. A release on an index of packages puts the
package's name here, and into the README's "Install"."""


def install_command(extra: str = "", *flags: str) -> str:
    """The command that installs this package.

    Args:
        extra: optional dependencies to install with it, such as "export".
        flags: options for pip.
    """
    command = " ".join(["pip install", *flags, f'"{SOURCE}[{extra}]"' if extra else SOURCE])
    return f"{command} (in a checkout, or with a wheel's file for the dot)" if SOURCE == "." else command
