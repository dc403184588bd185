"""The commands ``dualpriv keys``: what each takes; what it does is in keys.py, imported when it is called."""

from pathlib import Path
from typing import Annotated

import typer

keys = typer.Typer(help="Sign privacy statements and verify signed ones.", no_args_is_help=True)


@keys.command("new", epilog="Example: dualpriv keys new --private ~/sign.pem --public sign.pub.pem")
def new(
    private: Annotated[Path, typer.Option("--private", help="A new file, outside Git, for the private key.")],
    public: Annotated[Path, typer.Option("--public", help="A new file, for the public key.")],
) -> None:
    """Make an Ed25519 key pair that signs privacy statements."""
    from pipeline.keys import new_command

    new_command(private, public)


@keys.command("sign", epilog="Example: dualpriv keys sign --private ~/sign.pem")
def sign(
    private: Annotated[Path, typer.Option("--private", help="The PEM file of your private key.")],
) -> None:
    """Sign the statement, the ledger's head and the digest of every artifact, once the audit passes."""
    from pipeline.keys import sign_command

    sign_command(private)


@keys.command("verify", epilog="Example: dualpriv keys verify --public sign.pub.pem")
def verify(
    public: Annotated[Path, typer.Option("--public", help="The PEM file of the signer's public key.")],
) -> None:
    """Verify the signed statement; exit 0 only when the key signed exactly what is here."""
    from pipeline.keys import verify_command

    raise typer.Exit(verify_command(public))
