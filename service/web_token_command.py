"""``discnode web-token``: who may use the HTTP API."""

import argparse
import sys
from pathlib import Path

from config.settings import SettingsError, load_settings
from service.web_tokens import Role, new_token, read_tokens, remove_token


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's actions: new, list, remove."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    new = actions.add_parser("new", help="makes a token and prints it, once")
    new.add_argument("--role", choices=[role.name.lower() for role in Role], required=True)
    new.add_argument("--name", required=True, help="whose it is; recorded with what is done with it")
    new.set_defaults(command=_new)
    listing = actions.add_parser("list", help="names and roles")
    listing.set_defaults(command=_list)
    remove = actions.add_parser("remove", help="refuses a token from now on")
    remove.add_argument("--name", required=True)
    remove.set_defaults(command=_remove)
    for action in (new, listing, remove):
        action.add_argument("--config", type=Path, required=True, help="settings file of the node (YAML)")


def _file(options: argparse.Namespace) -> Path:
    file = load_settings(options.config).web.tokens_file
    if file is None:
        raise SettingsError(f"{options.config}: web.tokens_file is not set")
    return file


def _new(options: argparse.Namespace) -> int:
    token = new_token(_file(options), options.name, Role[options.role.upper()])
    sys.stdout.write(f"{token}\n")
    sys.stderr.write("Show it as 'Authorization: Bearer TOKEN'. It is not kept here and cannot be shown again.\n")
    return 0


def _list(options: argparse.Namespace) -> int:
    for token in read_tokens(_file(options)):
        sys.stdout.write(f"{token.role.name.lower():9s} {token.name}\n")
    return 0


def _remove(options: argparse.Namespace) -> int:
    if remove_token(_file(options), options.name):
        return 0
    sys.stderr.write(f"nobody named {options.name} has a token\n")
    return 2
