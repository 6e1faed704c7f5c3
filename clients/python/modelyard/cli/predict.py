"""predict."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.cli._input import read_rows
from modelyard.cli._output import TABLE, Format, Output, show_json
from modelyard.cli._session import connect


def predict(
    name: Annotated[
        str, typer.Argument(help="Full name of the deployment: prod.ml_team.iris.", metavar="NAME")
    ],
    rows: Annotated[
        str, typer.Option("--input", "-i", metavar="FILE", help="Rows as JSON or CSV; `-` is standard input.")
    ],
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="Version number that must answer.")
    ] = None,
    method: Annotated[
        str, typer.Option("--method", help="Method of the model: predict_proba; by default its first.")
    ] = "",
    timeout: Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds to wait.")] = 60.0,
    output: Output = TABLE,
) -> None:
    """Predict with a deployment.

    JSON is a list of rows, [[5.1, 3.5, 1.4, 0.2]], or an object of arrays by tensor name. A CSV whose first line is not
    all numbers has column names.
    """
    data = read_rows(rows, "--input")
    with connect() as client:
        prediction = client.predict(name, data, version=version, method=method, timeout=timeout)
    outputs = {tensor: array.tolist() for tensor, array in prediction.outputs.items()}
    if output is Format.JSON:
        show_json(
            {
                "deployment": prediction.deployment,
                "model": prediction.model,
                "model_version": prediction.model_version,
                "artifact_digest": prediction.artifact_digest,
                "outputs": outputs,
            }
        )
        return
    typer.echo(f"{prediction.model}/{prediction.model_version}  {prediction.artifact_digest}", err=True)
    for line in zip(*([str(tensor), *map(str, values)] for tensor, values in outputs.items()), strict=False):
        typer.echo("\t".join(line))
