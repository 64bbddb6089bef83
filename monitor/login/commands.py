"""The command ``users``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from stream.console import RefusalError
from stream.settings import Settings

users_option = click.option(
    "--users",
    "users_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The users file. [default: BEDSIDE_USERS_FILE]",
)


@click.group("users")
def users() -> None:
    """Say who may use the dashboard: people with passwords, programs with tokens.

    \b
    bedside users add anna --users users.json            asks for a password, twice
    bedside users add wall --role viewer --users users.json < password.txt
    bedside users add grafana --role viewer --no-password --users users.json
    bedside users token grafana --users users.json       prints a token, once
    bedside dashboard --host 0.0.0.0 --users users.json
    """


def _command(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    def register(function: Callable[..., Any]) -> click.Command:
        return users.command(name)(users_option(function))

    return register


@_command("add")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["viewer", "operator"]),
    help="Viewers see everything; operators also acknowledge, pause and change. [default: as before, else"
    " operator]",
)
@click.option("--no-password", is_flag=True, help="For a program, which comes with a token.")
def add(name: str, role: str | None, no_password: bool, users_file: Path | None) -> None:
    """Add NAME, or change password and role; what NAME does is audited under this name.

    The password is asked for twice, or is the first line of standard input. Whoever is signed in has to sign
    in again.
    """
    from monitor.login.passwords import PasswordError, hashed
    from monitor.login.users import Role, User, UsersError, changing
    from stream.contract import is_name

    if not is_name(name) or name != name.strip():
        raise click.BadParameter("1 to 64 printable characters, no space around them", param_hint="NAME")
    path = _path(users_file)
    try:
        password = None if no_password else hashed(_password())
        with changing(path) as file:
            before = file.users.get(name)
            wanted = Role(role) if role else before.role if before else Role.OPERATOR
            tokens = before.tokens if before else ()
            file.users[name] = User(role=wanted, password=password, tokens=tokens)
    except (PasswordError, UsersError) as error:
        raise RefusalError(str(error)) from error
    click.echo(f"{name}: {'added' if before is None else 'changed'}, {wanted}")


@_command("list")
def list_users(users_file: Path | None) -> None:
    """List names, roles, and what each signs in with."""
    from monitor.login.users import UsersError, load

    try:
        file = load(_path(users_file))
    except UsersError as error:
        raise RefusalError(str(error)) from error
    width = max((len(name) for name in file.users), default=0)
    for name, user in sorted(file.users.items()):
        ways = ["password"] if user.password else []
        if user.tokens:
            ways.append("1 token" if len(user.tokens) == 1 else f"{len(user.tokens)} tokens")
        click.echo(f"{name:<{width}}  {user.role:<8}  {', '.join(ways) or 'cannot sign in: no token yet'}")


@_command("remove")
@click.argument("name")
def remove(name: str, users_file: Path | None) -> None:
    """Remove NAME: open pages of theirs are signed out within seconds, tokens count no more."""
    from monitor.login.users import UsersError, changing

    try:
        with changing(_path(users_file)) as file:
            if file.users.pop(name, None) is None:
                raise RefusalError(f"there is no user {name}")
    except UsersError as error:
        raise RefusalError(str(error)) from error
    click.echo(f"{name}: removed")


@_command("token")
@click.argument("name")
@click.option("--revoke", is_flag=True, help="End all tokens of NAME instead.")
def token(name: str, revoke: bool, users_file: Path | None) -> None:
    """Make a token for programs of NAME and print it: only now, for only its digest is kept.

    A program sends it as the header "Authorization: Bearer TOKEN".
    """
    from monitor.login.users import UsersError, changing

    made = ""
    try:
        with changing(_path(users_file)) as file:
            if name not in file.users:
                raise RefusalError(f"there is no user {name}: `bedside users add {name} --no-password`")
            user = file.users[name]
            if revoke:
                file.users[name] = user.model_copy(update={"tokens": ()})
            else:
                made = file.add_token(name)
    except UsersError as error:
        raise RefusalError(str(error)) from error
    click.echo(f"{name}: {len(user.tokens)} revoked" if revoke else made)


def _path(users_file: Path | None) -> Path:
    path = users_file or Settings().users_file
    if path is None:
        raise RefusalError("which users file? Name it with --users or BEDSIDE_USERS_FILE")
    return path


def _password() -> str:
    if sys.stdin.isatty():
        password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        return password
    return sys.stdin.readline().rstrip("\r\n")
