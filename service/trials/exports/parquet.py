"""Tables as Parquet files, for R, Python and databases; needs the extra ``export`` (pyarrow)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from config.sections import SettingsError
from service.trials.exports.columns import Column, Row


def write_parquet(path: Path, columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """Write one table; meaning and unit stand with each column. The same rows give the same bytes.

    Raises:
        SettingsError: pyarrow is not installed.
    """
    arrow, parquet = _arrow()
    kinds = {
        "text": arrow.string(),
        "whole number": arrow.int64(),
        "number": arrow.float64(),
        "yes or no": arrow.bool_(),
    }
    fields = [
        arrow.field(
            one.name, kinds[one.kind], metadata={"meaning": one.meaning, "unit": one.unit, "allowed": one.allowed}
        )
        for one in columns
    ]
    schema = arrow.schema(fields, metadata={"use": "Research use only"})
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {one.name: [row[one.name] for row in rows] for one in columns}
    parquet.write_table(arrow.Table.from_pydict(values, schema=schema), path, compression="zstd")


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise SettingsError("Parquet needs pyarrow: pip install 'discnode[export]'") from error
    return pyarrow, pyarrow.parquet
