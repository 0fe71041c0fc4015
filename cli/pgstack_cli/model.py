"""``pgstack model``: the models of the model server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pgstack_cli.output import json_document, message, pairs, progress, size, table

if TYPE_CHECKING:
    from pgstack.models import BlockingModelServer

app = typer.Typer(
    help="Models of the model server: list, pull, show.\n\n"
    "The server is $OLLAMA_HOST when set, else the embedded one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="A name, such as all-minilm.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the models that are there.

    --json: one document, an array of Ollama's own objects.

    \b
    Examples:
      pgstack model list
      pgstack model list --json
    """
    with _server() as server:
        models = server.list()
    if as_json:
        json_document(models)
        return
    rows = [
        (m["name"], size(m.get("size", 0)), details.get("parameter_size"), details.get("family"))
        for m in models
        for details in [m.get("details") or {}]
    ]
    if rows:
        table(("model", "size", "parameters", "family"), rows)
    else:
        message("no models yet. Next: pgstack model pull all-minilm")


@app.command()
def pull(name: ModelName) -> None:
    """Fetch a model, if it is not there.

    \b
    Examples:
      pgstack model pull all-minilm
      pgstack model pull qwen2.5-coder:0.5b
    """
    with _server() as server:
        fetch(server, name)
    message(f"{name} is ready")


@app.command()
def show(name: ModelName, as_json: AsJson = False) -> None:
    """Show what the model server knows about a model.

    --json: one document, Ollama's own object.

    \b
    Examples:
      pgstack model show all-minilm
      pgstack model show all-minilm --json
    """
    with _server() as server:
        found = server.show(name)
    if as_json:
        json_document(found)
        return
    details = found.get("details") or {}
    values = {"model": name, **details, "capabilities": ", ".join(found.get("capabilities", []))}
    facts = found.get("model_info") or {}
    pairs([(key, value) for key, value in {**values, **facts}.items() if _is_short(value)])


def fetch(server: BlockingModelServer, name: str) -> None:
    """Pull a model with a progress bar."""
    with progress(f"pulling {name}", in_bytes=True) as advance:
        for step in server.pull(name):
            if step.get("total"):
                advance(step.get("completed", 0), step["total"])


def fetch_missing(name: str) -> None:
    """Pull a model unless it is there."""
    from pgstack import target

    with _server() as server:
        if not target.has_model([found["name"] for found in server.list()], name):
            message(f"fetching the model {name}")
            fetch(server, name)


def _server() -> BlockingModelServer:
    from pgstack.models import BlockingModelServer, resolve_url

    return BlockingModelServer(resolve_url())


def _is_short(value: object) -> bool:
    return isinstance(value, str | int | float) and len(str(value)) <= 200 and value != ""
